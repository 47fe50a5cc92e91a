"""Requests that went wrong on their way: valid JSON bodies, changed at random from a seed.

The same seed gives the same requests. A body is changed in its structure (a value of another type, a key left out,
renamed or there twice, a level too many …), then, one time in four, in its bytes (cut short, no UTF-8, no JSON …).
"""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HALF_PAIR = "\ud83d"
"""Half of a surrogate pair: JSON can write it, UTF-8 cannot."""

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3.5, -0.0, 2**31, 2**53 + 1, 2**63, 2**64, 2**70, -(2**70), 1e308, 1e-320,
    float("nan"), float("inf"), float("-inf"), "", " ", "text", "0", "NaN", "\x00", "\u202e", "é" * 300, HALF_PAIR,
    "<|im_start|>", "<|im_end|>", "<think>", "<tool_call>", "{{ 7 * 7 }}", "../../etc/passwd", "😀" * 64, [], {}, [[]],
    [None], {"": None}, {"a": {"b": [{"c": 1}]}}, [1, "a", None, {}],
)  # fmt: skip
DEPTHS = (50, 300, 3_000, 20_000)
SIZES = (1_000, 30_000, 300_000)
MAX_BYTES = 4_000_000
"""What is longer is cut there."""

ODD_HEADERS: tuple[dict[str, str], ...] = (
    {"content-type": "text/plain"},
    {"content-type": "application/xml"},
    {"content-type": "application/json; charset=utf-16"},
    {"content-type": ""},
    {"content-encoding": "gzip"},
    {"content-encoding": "zstd"},
    {"accept": "text/html"},
    {"x-agentlightning-rollout": "r" * 4_000},
    {"x-agentlightning-rollout": "\xe9\xff%00"},
    {"expect": "nothing"},
    {"cookie": "c=" + "x" * 8_000},
)


@dataclass
class Mutant:
    """A request to send: ``changes`` says in words what was done to it."""

    content: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    changes: list[str] = field(default_factory=list)


def mutate(body: Any, rng: random.Random) -> Mutant:
    """A request made of a copy of ``body`` with one to three changes."""
    changed = {"body": copy.deepcopy(body)}
    changes = [_change_structure(changed, rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    mutant = Mutant(_encode(changed["body"], rng)[:MAX_BYTES], changes=changes)
    if rng.random() < 0.25:
        change = rng.choice(BYTE_CHANGES)
        mutant.content = change(mutant.content, rng)
        mutant.changes.append(change.__name__.strip("_"))
    if rng.random() < 0.15:
        headers = rng.choice(ODD_HEADERS)
        mutant.headers |= headers
        mutant.changes.append(f"header {next(iter(headers))}")
    return mutant


def _change_structure(root: dict[str, Any], rng: random.Random) -> str:
    holder, key, path = rng.choice(list(_places(root)))
    change = rng.choice(STRUCTURE_CHANGES)
    change(holder, key, rng)
    return f"{change.__name__.strip('_')} {path}"


def _places(root: dict[str, Any]) -> list[tuple[Any, Any, str]]:
    """Every value below ``root``: what holds it, its key there, its path."""
    places, left = [], [(root, "")]
    while left:
        holder, path = left.pop()
        for key in list(holder if isinstance(holder, dict) else range(len(holder))):
            below = f"{path}.{key}"
            places.append((holder, key, below))
            if isinstance(holder[key], dict | list) and below.count(".") < 30:
                left.append((holder[key], below))
    return places


def _replace(holder: Any, key: Any, rng: random.Random) -> None:
    holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))


def _remove(holder: Any, key: Any, rng: random.Random) -> None:
    if key == "body":
        holder[key] = None
    else:
        del holder[key]


def _rename(holder: Any, key: Any, rng: random.Random) -> None:
    if isinstance(holder, dict) and key != "body":
        holder[rng.choice((f"{key}s", str(key).upper(), "", "nobody_knows_this", HALF_PAIR, "__proto__"))] = holder.pop(
            key
        )


def _wrap(holder: Any, key: Any, rng: random.Random) -> None:
    holder[key] = [holder[key]] if rng.random() < 0.5 else {"value": holder[key]}


def _nest(holder: Any, key: Any, rng: random.Random) -> None:
    """Too deep for `json.dumps`, so a mark that `_encode` writes out."""
    depth, bracket = rng.choice(DEPTHS), rng.choice(("[", "{"))
    holder[key] = f"@nest{bracket}{depth}@"


def _lengthen(holder: Any, key: Any, rng: random.Random) -> None:
    size = rng.choice(SIZES)
    longer = {
        str: lambda value: (value or "a ") * (size // max(len(value), 1)),
        list: lambda value: value * _times(value, 100),
    }
    holder[key] = longer.get(type(holder[key]), lambda value: "word " * (size // 5))(holder[key])


def _repeat(holder: Any, key: Any, rng: random.Random) -> None:
    holder[key] = [holder[key]] * _times(holder[key], rng.choice((2, 50, 1_000)))


def _times(value: Any, times: int) -> int:
    """How often a value can be repeated within `MAX_BYTES`: changes of changes grow fast."""
    return max(1, min(times, MAX_BYTES // _size(value)))


def _size(value: Any) -> int:
    """About how long a value is as JSON."""
    if isinstance(value, dict):
        return 2 + sum(len(str(key)) + _size(item) for key, item in value.items())
    if isinstance(value, list):
        return 2 + sum(map(_size, value))
    return 2 + len(value) if isinstance(value, str) else 4


def _swap(holder: Any, key: Any, rng: random.Random) -> None:
    if not isinstance(holder, dict) or len(holder) < 2:
        return
    other = rng.choice([each for each in holder if each != key])
    holder[key], holder[other] = holder[other], holder[key]


def _retype(holder: Any, key: Any, rng: random.Random) -> None:
    value = holder[key]
    holder[key] = (
        str(value)[:1_000] if not isinstance(value, str) else rng.choice((len(value), [value], list(value[:20])))
    )


STRUCTURE_CHANGES: tuple[Callable[[Any, Any, random.Random], None], ...] = (
    _replace, _replace, _replace, _remove, _rename, _wrap, _nest, _lengthen, _repeat, _swap, _retype,
)  # fmt: skip


def _encode(body: Any, rng: random.Random) -> bytes:
    text = json.dumps(body, ensure_ascii=rng.random() < 0.5)
    for bracket, close in (("[", "]"), ("{", "}")):
        for depth in DEPTHS:
            opening = bracket if bracket == "[" else '{"a":'
            text = text.replace(f'"@nest{bracket}{depth}@"', opening * depth + "0" + close * depth)
    return text.encode("utf-8", "surrogatepass")


def _cut_short(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 4, 16))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _insert_bytes(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    odd = rng.choice(
        (b"\xff", b"\xc3", b"\x00", b"\xed\xa0\x80", b"\\ud83d", b"\xef\xbb\xbf", b",", b"}", b'"', b"NaN", b"1e999")
    )
    return content[:at] + odd + content[at:]


def _other_encoding(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-32", "latin-1", "utf-8-sig")), "replace")


def _compress(content: bytes, rng: random.Random) -> bytes:
    return gzip.compress(content, mtime=0)


def _nothing(content: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b" ", b"null", b"[]", b"0", b'""', b"{}"))


def _twice(content: bytes, rng: random.Random) -> bytes:
    return content + content


def _keys_twice(content: bytes, rng: random.Random) -> bytes:
    return content[:-1] + b"," + content[1:] if content.startswith(b"{") and len(content) > 2 else content


def _noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 2_000))


BYTE_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _cut_short, _flip_bits, _insert_bytes, _other_encoding, _compress, _nothing, _twice, _keys_twice, _noise,
)  # fmt: skip
