"""Mutations of a file's bytes and of values in JSON, each a function of the random generator."""

import json
import random
import re
from collections.abc import Callable
from typing import Any

LARGEST = 2**20  # bytes of a mutated file
NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"2147483648",
    b"9223372036854775808",
    b"1000000000",
    b"9" * 400,
    b"0.5",
)
TOKENS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b",", b"\r", b"\n", b"\xe2\x80\xa8",
    b"\x0b", b"\x1b[2J",
    b"<![", b"{", b"[" * 2000, b"}", b": ", b"&a [*a, *a]", b"!!python/name:x ", b"../", b"/etc/passwd",
    b"\xed\xa0\x80",
    b"\x7f" * 8, b"\xff" * 8, b"\x00" * 16, b"e5", b"- ", b"#", b"|", b"\t", b"=", b"\xc3",
)  # fmt: skip


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


VALUES: tuple[Callable[[], Any], ...] = (
    lambda: None, lambda: True, lambda: 0, lambda: -1, lambda: 1, lambda: 2**31, lambda: 10**9, lambda: 2**63,
    lambda: 10**30, lambda: 0.5, lambda: -1e308, lambda: float("nan"), lambda: float("inf"),
    lambda: "", lambda: "24", lambda: "../x", lambda: "a\x1b[2J\n\u202e", lambda: "\ud800",
    lambda: "x" * 5000, lambda: [], lambda: {},
    lambda: [1] * 1000, lambda: [[]], lambda: {"a": {"b": 1}}, lambda: _nested(60), lambda: _nested(600),
    lambda: "F8_E4M3", lambda: "I64", lambda: "F64", lambda: "C64",
)  # fmt: skip


def mutate(content: bytes, name: str, rng: random.Random) -> bytes:
    """A changed copy: of a JSON file or the header of a safetensors file often one of its values."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if name.endswith((".json", ".jsonl")) and rng.random() < 0.7:
            content = _change_json(content, rng)
        elif name.endswith(".safetensors") and rng.random() < 0.5:
            content = _change_header(content, rng)
        else:
            content = rng.choice(BYTES)(content, rng)
    return content[:LARGEST]


def _place(content: bytes, rng: random.Random) -> tuple[int, int]:
    """A slice of the content; small ones and those at the start and the end are as likely as others."""
    if not content:
        return 0, 0
    start = rng.choice((rng.randrange(len(content)), rng.randrange(min(len(content), 64)), len(content) - 1))
    return start, min(len(content), start + rng.choice((1, 2, 4, 8, rng.randrange(1, len(content) + 1))))


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8)) if content else 0):
        changed[_place(content, rng)[0]] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, rng: random.Random) -> bytes:
    start, end = _place(content, rng)
    return content[:start] + rng.randbytes(end - start) + content[end:]


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)[0]]


def _delete(content: bytes, rng: random.Random) -> bytes:
    start, end = _place(content, rng)
    return content[:start] + content[end:]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start, end = _place(content, rng)
    count = rng.choice((2, 3, 100, 10_000))
    count = min(count, 1 + LARGEST // max(end - start, 1))
    return content[:start] + content[start:end] * count + content[end:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    start, _ = _place(content, rng)
    return content[:start] + rng.choice((*TOKENS, *NUMBERS)) + content[start:]


def _swap(content: bytes, rng: random.Random) -> bytes:
    (a, b), (c, d) = sorted((_place(content, rng), _place(content, rng)))
    return content if b > c else content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _change_number(content: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", content[:65536]))
    if not found:
        return _insert(content, rng)
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(NUMBERS) + content[match.end() :]


BYTES = (_flip, _overwrite, _truncate, _delete, _repeat, _insert, _insert, _swap, _change_number)


def _change_json(content: bytes, rng: random.Random) -> bytes:
    """Replace, remove, rename or repeat one value of a JSON file, or of one of its lines."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    for text, join in (
        (content, lambda x: x),
        (lines[place], lambda x: b"\n".join([*lines[:place], x, *lines[place + 1 :]])),
    ):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        return bytes(join(json.dumps(_change_value(value, rng)).encode()))
    return rng.choice(BYTES)(content, rng)


def _change_value(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(VALUES)()
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    action = rng.random()
    if action < 0.15:
        del value[key]
    elif action < 0.25 and isinstance(value, dict):
        value[rng.choice((f"{key}x", "", "\x1b[2J", "path", "9" * 300))] = value.pop(key)
    elif action < 0.3 and isinstance(value, list):
        value += [value[key]] * rng.choice((1, 1000))
    else:
        value[key] = _change_value(value[key], rng)
    return value


def _change_header(content: bytes, rng: random.Random) -> bytes:
    """Change the JSON at the start of a safetensors file, and its length before it."""
    size = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + size])
    except ValueError:
        return rng.choice(BYTES)(content, rng)
    changed = json.dumps(_change_value(header, rng)).encode()
    return len(changed).to_bytes(8, "little") + changed + content[8 + size :]
