"""Errors of the system and of libraries, in words that say what to do."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from agentlightning.errors import ConfigError, advice


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


def caused(error: Exception) -> Exception:
    outer = RuntimeError("the step failed")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "out of memory: make what is held at once smaller"),
        (OutOfMemoryError("CUDA: tried to allocate 2 GiB"), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "runs/x: the disk is full: free some space"),
        (RuntimeError("PytorchStreamWriter failed writing file data/7: file write failed"), "the disk is full"),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "runs: permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "runs"), "runs: the file system is read-only"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files: raise the limit"),
        (OSError(errno.EADDRINUSE, "Address already in use"), "the port is taken"),
        (caused(OSError(errno.ENOSPC, "No space left on device")), "the disk is full"),
    ],
    ids=str,
)
def test_an_error_of_the_system_says_what_to_do(error: Exception, says: str) -> None:
    told = advice(error)
    assert told is not None
    assert told.startswith(says)
    assert "\n" not in told


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("shapes"), KeyError("x"), ConfigError("seed: no")])
def test_any_other_error_speaks_for_itself(error: Exception) -> None:
    assert advice(error) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_really_full() -> None:
    with pytest.raises(OSError, match="No space left") as error, open("/dev/full", "w", buffering=1) as file:
        file.write("x\n")
    assert str(advice(error.value)).endswith("the disk is full: free some space")
