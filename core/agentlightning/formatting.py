"""Numbers as people read them."""

from __future__ import annotations

import re
import time
from datetime import datetime

SECONDS_OF = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def format_number(value: float) -> str:
    """``0.420``, ``1e+308``."""
    return f"{value:.3f}" if abs(value) < 1e6 else f"{value:.3g}"


def format_duration(seconds: float) -> str:
    """``0.8 s``, ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def format_p(p: float) -> str:
    """``0.034``, ``1.2e-05``."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def format_time(seconds: float | None) -> str:
    """Local date and time; ``–`` where there is none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "–"


def parse_duration(text: str) -> float:
    """Seconds of ``90s``, ``30m``, ``12h`` or ``7d``. Raises `ValueError` for anything else, and for none."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if found is None or not int(found[1]):
        raise ValueError(f"{text!r}: expected a number and a unit, such as 90s, 30m, 12h or 7d")
    return float(int(found[1]) * SECONDS_OF[found[2]])


def parse_since(text: str) -> float:
    """When it was, in seconds since the epoch: so long ago (``24h``, ``7d``), or a date (``2026-01-31``), also with a
    time. Raises `ValueError` for anything else."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        raise ValueError(f"{text!r}: expected a time such as 24h or 7d, or a date such as 2026-01-31") from None
