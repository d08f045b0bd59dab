"""The record of a run in its folder: config.yaml, config.json, and a line per start in history.jsonl."""

import json
import logging
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from opensora.config_files import parse_json
from opensora.files import hash_file, naming, write_atomic
from opensora.options import by_group
from opensora.runtime import versions
from opensora.train.options import LoopOptions

log = logging.getLogger(__name__)

HISTORY = "history.jsonl"
SYNONYMS = {"adam": "adamw", "adamw_re": "adamw"}
IDENTITIES = ("fingerprint.json", "manifest.json")
"""Files that identify a cache and the demo data set."""


def write_options(run: Path, options: Any) -> None:
    """Write `run`/config.yaml, which `--config` reads: the options in their groups."""
    run.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(by_group(options), sort_keys=False)
    write_atomic(run / "config.yaml", lambda file: file.write(text.encode()))


def describe_run(run: Path, options: LoopOptions, config: Mapping[str, Any], step: int) -> None:
    """Write the options, the network's config.json, and a line of history for a start after `step`."""
    write_options(run, options)
    content = json.dumps(dict(config), indent=2) + "\n"
    write_atomic(run / "config.json", lambda file: file.write(content.encode()))
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "step": step,
        "command": shlex.join(sys.argv),
        "versions": versions(),
        **_description(options, config),
    }
    with naming(run / HISTORY), open(run / HISTORY, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def check_resumed(run: Path, options: LoopOptions, config: Mapping[str, Any], same_run: bool) -> None:
    """Compare the options with those that the run `run` was last started with, and log what changed.

    same_run: the run continues in its own folder, and not as another. Raises ValueError for another network,
    another state of the optimizer, and, in the same run, other data.
    """
    before = _last_start(run / HISTORY)
    if before is None:
        if (run / HISTORY).is_file():
            log.warning("no line of %s can be read, so the options are not compared", run / HISTORY)
        return
    now = _description(options, config)
    changed = _differences(before["options"], now["options"])
    names = before["config"].keys() | now["config"].keys()  # settings that a model leaves at None are absent
    network = _differences(*(dict.fromkeys(names) | part["config"] for part in (before, now)))
    state = _differences(
        *({name: part["options"].get(name) for name in options.FIXED} for part in (before, now))
    )
    data = [
        name for name in options.DATA if same_run and name in changed and not _same_data(name, before, now)
    ]
    if network or state or data:
        faults = {**network, **state, **{name: changed[name] for name in data}, **changed}
        listed = "; ".join(
            f"{name} was {old!r:.80} and is {new!r:.80}" for name, (old, new) in faults.items()
        )
        raise ValueError(
            f"{run} cannot continue with these options ({listed}): use the options it was started with, or "
            f"choose another --output_dir, where --{options.INITIAL} {run} starts from its weights"
        )
    hidden = {"output_dir", "resume_from_checkpoint"}
    for name, (old, new) in changed.items():
        if name not in hidden:
            log.info("continuing with another %s: %s, and until now %s", name, new, old)
    for name, digest in now["data"].items():
        if name not in changed and before["data"].get(name, digest) != digest:
            log.warning("the content of %s has changed since the run was last started", name)


def _description(options: LoopOptions, config: Mapping[str, Any]) -> dict[str, Any]:
    """The facts by which two starts of a run are compared, as JSON holds them."""
    values = asdict(options)
    digests = {name: _identify(values[name]) for name in options.DATA if values.get(name) is not None}
    description = {"options": values, "config": dict(config), "data": digests}
    result: dict[str, Any] = json.loads(json.dumps(description))
    return result


def _identify(place: str) -> str | None:
    """The sha256 of a list, or of the file that identifies a data set; None for a folder of files."""
    path = Path(place)
    files = [path, *(path / name for name in IDENTITIES)]
    return next((hash_file(file) for file in files if file.is_file()), None)


def _same_data(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    old, new = (Path(str(part["options"][name])).resolve() for part in (before, now))
    digest = now["data"].get(name)
    return old == new or (digest is not None and digest == before["data"].get(name))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(old, new) of the names that both have with other values."""
    return {
        name: (before[name], now[name])
        for name in now
        if name in before and _plain(before[name]) != _plain(now[name])
    }


def _plain(value: Any) -> Any:
    return SYNONYMS.get(value, value) if isinstance(value, str) else value


def _last_start(path: Path) -> dict[str, Any] | None:
    """The last readable line of a history; None if there is none."""
    if not path.is_file():
        return None
    for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            entry = parse_json(line, path)
        except ValueError:
            continue  # a kill cut it short
        if isinstance(entry, dict) and all(
            isinstance(entry.get(name), dict) for name in ("options", "config", "data")
        ):
            return entry
    return None
