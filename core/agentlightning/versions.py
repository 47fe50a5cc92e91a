"""Which versions a run was made with."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """The versions of Python, of ``distributions`` and of what these require, by name; only of what is installed."""
    found = {"python": platform.python_version()}
    for distribution in distributions:
        found |= _versions_of(distribution)
    return dict(sorted(found.items()))


@cache  # a process has the versions that it began with, and reading them takes as long as a short run
def _versions_of(distribution: str) -> dict[str, str]:
    """Those of a distribution and of what it requires; none of one that is not installed."""
    found = {}
    with suppress(PackageNotFoundError):
        for name in (distribution, *(Requirement(need).name for need in requires(distribution) or ())):
            with suppress(PackageNotFoundError):
                found[name] = version(name)
    return found


def version_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """``torch 2.8.0, now 2.9.1`` for each that differs; one that is new, or no longer there, differs from ``none``."""
    return [
        f"{name} {before.get(name, 'none')}, now {now.get(name, 'none')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
