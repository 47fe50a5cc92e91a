"""Secrets, blotted out of whatever is written down: spans, failures, log lines, the record of a run.

A secret is known in two ways. Its value was met (`remember`): the key of a client, a header, a variable of the
environment, a field of a config. Such a value is blotted out wherever it stands. Or a text looks like one (`redact`),
which is asked of failures, log lines and configs only: what a model was asked or answered is not touched for its looks.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

REDACTED = "[redacted]"

MAX_REMEMBERED = 256
"""Values; keys that are renewed all the time push out the oldest."""

_PLACEHOLDERS = {"agentlightning-placeholder", "lm-studio", "no-key-needed", "not-needed", "placeholder"}
_SECRET_NAME = re.compile(
    r"((api|access|auth|secret|private|subscription)key|secret|password|credential|cookie)s?$"
    r"|(passwd|passphrase|authorization|token)$"
)
_SECRET_OF_A_REQUEST = re.compile(r"(key|auth|code|sig|signature)$")
_TOKEN_OF_TEXT = re.compile(r"(bos|cls|end|eos|image|mask|pad|sep|special|start|stop|tool|unk)token$")

_LOOKS_SECRET = re.compile(
    r"""
    (?P<before>
        \b(?i:bearer|basic)\s+(?=[^\s"']{0,200}(?:\d|=|[._~-]\w))
      | (?i:\b[\w-]{0,40}(?:api[-_ ]?key|secret|passw(?:or)?d|authorization|access[-_]?key|token)["']?\s*[:=]\s*["']?)
        (?!(?i:bearer|basic)\b)(?=[^\s"',;&]{0,200}\d)(?=[^\s"',;&]{0,200}[A-Za-z])
      | ://[^/\s:@"']{0,200}:(?=[^/\s@"']{1,200}@)
      | [?&](?i:key|sig|signature|code)=
    )
    (?!\[redacted)[^\s"'<>,;&@)}\]]{6,}
  | \b(?:sk|pk|rk|gsk|xai|hf|nvapi|pplx|r8|fw|gh[opsu]|github_pat|glpat|xox[abprs])[-_][A-Za-z0-9_-]{8,}
  | \bAIza[A-Za-z0-9_-]{30,}
  | \bya29\.[A-Za-z0-9_-]{20,}
  | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
  | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*
    """,
    re.VERBOSE,
)

_lock = threading.Lock()
_remembered: dict[str, bytes] = {}
_longest_first: tuple[tuple[str, bytes], ...] = ()


def remember(*values: Any) -> None:
    """Takes values as secrets from now on: strings that are long enough not to stand in texts by chance."""
    for value in values:
        if isinstance(value, str) and value not in _remembered:
            bare = re.sub(r"^(?i:bearer|basic|token)\s+", "", value.strip())
            if bare not in _remembered and bare not in _PLACEHOLDERS and _is_telling(bare):
                _remember(bare)


def remember_named(fields: Mapping[str, Any], *, of_request: bool = False) -> None:
    """Remembers the values of fields whose names say that they are secret. ``of_request``: headers or query
    parameters, of which ``key`` and the like are secret, too."""
    for name, value in fields.items():
        if isinstance(name, str) and is_secret_name(name, of_request=of_request):
            remember(*_texts(value))


def remember_url(url: str) -> None:
    """Remembers the password and the secret query parameters in a URL."""
    try:
        parts = urlsplit(url)
        remember(parts.password)
        remember_named(dict(parse_qsl(parts.query)), of_request=True)
    except ValueError:
        return


def begin_redacting() -> None:
    """Called where a run or a recording begins: has the log lines of this library written without secrets, and
    remembers the variables of the environment whose names say that they are secret (``*_API_KEY``, ``*_TOKEN`` …).

    A value that is a path, a number or a short word is none: ``POSTGRES_PASSWORD=postgres`` stands in many a text.
    """
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _RedactingFactory):
        logging.setLogRecordFactory(_RedactingFactory(factory))
    for name, value in os.environ.items():
        if value in _remembered or len(value) < 8 or not is_secret_name(name):
            continue
        if not value.isdigit() and not value.startswith("/") and (len(value) >= 16 or not value.isalpha()):
            remember(value)


@functools.lru_cache(4096)
def is_secret_name(name: str, *, of_request: bool = False) -> bool:
    """Whether a field, header or variable of this name holds a secret: ``api_key``, ``hf_token``, not ``eos_token``
    nor ``api_key_env``."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower()).rstrip("0123456789")
    if _SECRET_NAME.search(plain):
        return not _TOKEN_OF_TEXT.search(plain)
    return of_request and _SECRET_OF_A_REQUEST.search(plain) is not None


def redact(text: str) -> str:
    """A text of a failure, a log line or a config without secrets: those met, and what looks like one."""
    return _LOOKS_SECRET.sub(_blotted, _without_known(text))


def redact_config(value: Any) -> Any:
    """A config of plain values: whatever stands in a field of a secret's name, and secrets in other texts, blotted
    out. Such values are remembered."""
    if isinstance(value, dict):
        remember_named(value)
        return {
            name: REDACTED if isinstance(name, str) and is_secret_name(name) and item else redact_config(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_config(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def redact_known(value: Any) -> Any:
    """Plain values with the secrets that were met blotted out; the same object where there is none."""
    if isinstance(value, str):
        return _without_known(value)
    if isinstance(value, dict):
        changed = {redact_known(name): redact_known(item) for name, item in value.items()}
        return (
            value if all(map(_same, changed.values(), value.values())) and changed.keys() == value.keys() else changed
        )
    if type(value) in (list, tuple):
        items = [redact_known(item) for item in value]
        return value if all(map(_same, items, value)) else type(value)(items)
    return value


def redact_fields(record: Any, *names: str) -> None:
    """Puts in the place of a record's fields the same without the secrets that were met; None has none."""
    for name in names if record is not None else ():
        setattr(record, name, redact_known(getattr(record, name)))


def holds_known(data: bytes) -> bool:
    """Whether a secret that was met stands in encoded data."""
    return any(needle in data for _, needle in _longest_first)


def scrub(data: bytes) -> bytes:
    """A record in MessagePack without the secrets that were met: also those in the ``repr`` of an agent's object."""
    if not holds_known(data):
        return data
    try:
        return msgspec.msgpack.encode(redact_known(msgspec.msgpack.decode(data)))
    except msgspec.DecodeError:
        # Written, and not to be read again. The length stays, which stands before each text.
        for _, needle in _longest_first:
            data = data.replace(needle, b"*" * len(needle))
        return data


def _same(one: Any, other: Any) -> bool:
    return one is other


def _remember(value: str) -> None:
    global _longest_first
    with _lock:
        _remembered[value] = value.encode(errors="replace")
        while len(_remembered) > MAX_REMEMBERED:
            del _remembered[next(iter(_remembered))]
        _longest_first = tuple(sorted(_remembered.items(), key=lambda item: -len(item[0])))


def _is_telling(value: str) -> bool:
    return len(value) >= 8 or (len(value) >= 6 and not value.isalpha())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _without_known(text: str) -> str:
    for value, _ in _longest_first:
        if value in text:
            text = text.replace(value, REDACTED)
    return text


def _blotted(found: re.Match[str]) -> str:
    return f"{found['before'] or ''}{REDACTED}"


class _RedactingFactory:
    """Makes log records: those of this library without secrets, all others as they are.

    Each logger is made by its own module, and a filter is not handed down to children; a factory sees every record.
    """

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        if str(record.name).startswith("agentlightning"):  # None in `logging.makeLogRecord`
            try:
                _redact_record(record)
            except Exception:  # noqa: BLE001 - logging itself tells of a message that cannot be formatted
                return record
        return record


def _redact_record(record: logging.LogRecord) -> None:
    message = record.getMessage()
    clean = redact(message)
    if clean != message:
        record.msg, record.args = clean, None
    if record.exc_info:
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
