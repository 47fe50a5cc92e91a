"""Text that may hold anything → text that can be sent and read."""

from __future__ import annotations

LONGEST = 300


def sendable(text: str) -> str:
    """The text without what UTF-8 has no place for."""
    return text.encode(errors="replace").decode()


def clipped(value: object, most: int = LONGEST) -> str:
    """A value in a message: no longer than ``most`` characters, and sendable."""
    text = sendable(str(value))
    return text if len(text) <= most else f"{text[: most - 1]}…"
