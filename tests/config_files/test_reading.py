"""Configuration files are read within limits, whatever they hold."""

import codecs
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from opensora.config_files import parse_json, parse_yaml, read_settings, shown

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_json_and_yaml_hold_plain_values(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(codecs.BOM_UTF8 + '{"é": [1, 2.5, null, true]}'.encode())
    (tmp_path / "a.yaml").write_bytes(codecs.BOM_UTF8 + "é: [1, 2.5, null, true]\nday: 2020-13-45".encode())
    assert read_settings(tmp_path / "a.json") == {"é": [1, 2.5, None, True]}
    assert read_settings(tmp_path / "a.yaml") == {"é": [1, 2.5, None, True], "day": "2020-13-45"}
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert read_settings(tmp_path / "a.yaml") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ('{"a": NaN}', "NaN is not a number of JSON"),
        ('{"a": -Infinity}', "-Infinity is not a number of JSON"),
        ('{"a": 1e999}', "holds the number inf"),
        ('{"a": 1' + "0" * 30 + "}", "at most 18 digits"),
        ('{"a": 1' + "0" * 5000 + "}", "is not valid JSON"),
        ('{"a": ' + "[" * 50 + "]" * 50 + "}", "nested more than 40 levels deep"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ("[1]", "holds a list instead of an object"),
        ("", "is not valid JSON"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"config\.json.*{message}"):
        read_settings(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x", r"line 2: aliases \(\*name\) are not supported"),
        ("a: !!python/name:os.system x", r"line 1: tags \(!name\) are not supported"),
        ("a: !!timestamp x", "tags"),
        ("a: 1\nb: 2\na: 3", "line 3: a is set twice"),
        ("? [a]\n: 1", "a name is not a text"),
        ("a: .inf", "holds the number inf"),
        ("a: 0x_", "is not valid YAML"),
        ("a: \x1b", "is not valid YAML"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("- 1", "holds a list instead of an object"),
        ("--- 1\n--- 2", "is not valid YAML"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.yaml.*{message}"):
        read_settings(tmp_path / "a.yaml")


def test_a_bomb_of_aliases_takes_no_memory() -> None:
    code = "import resource, sys; from opensora.config_files import parse_yaml\n"
    code += "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    code += "try: parse_yaml(sys.stdin.read(), 'x')\nexcept ValueError as error: print(error)\n"
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    limit = (resource.RLIMIT_AS, (2**31, 2**31))
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=BOMB,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(*limit),
    )
    message, grown = done.stdout.splitlines()
    assert "aliases" in message and int(grown) < 50_000  # kilobytes


def test_what_is_no_file_or_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"a\.json does not exist or is not a file"):
        read_settings(tmp_path / "a.json")
    with pytest.raises(ValueError, match="is not a file"):
        read_settings(tmp_path)
    monkeypatch.setattr("opensora.config_files.reading.MAX_JSON_BYTES", 10)
    (tmp_path / "a.json").write_text('{"a": 12345}')
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        read_settings(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(ValueError, match=r"a\.json is not UTF-8 text"):
        read_settings(tmp_path / "a.json")


def test_values_in_messages_are_short_and_printable() -> None:
    assert shown("a\x1b[31m") == r"'a\x1b[31m'"
    assert shown([1, "two", None]) == "[1, 'two', None]"
    assert len(shown("x" * 10**6)) < 100
    assert shown([[1]]) == "a list of 1 items" and shown({"a": 1}) == "an object of 1 items"
    assert shown(10**5000) == "a number of more than 77 digits"
    assert parse_json("[]", "x") == [] and parse_yaml("", "x") is None
