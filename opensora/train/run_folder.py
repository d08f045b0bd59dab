"""The run folder's description of the run: the options it was started with."""

from pathlib import Path
from typing import Any

import yaml

from opensora.files import write_atomic
from opensora.options import by_group


def write_options(run: Path, options: Any) -> None:
    """Write `run`/config.yaml, which `--config` reads: the options in their groups."""
    run.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(by_group(options), sort_keys=False)
    write_atomic(run / "config.yaml", lambda file: file.write(text.encode()))
