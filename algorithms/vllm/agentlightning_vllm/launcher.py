"""Runs a command, and ends it with the process that holds this one's standard input, however that one ended.

    python launcher.py COMMAND …

It is the first of a process group: whatever the command has started ends with it. A script by itself: it imports
nothing of ours, so that it runs wherever it lies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 10.0
"""How long the command may take to end by itself."""


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)  # meant for the command, whose end is waited for
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_parent, args=(command,), daemon=True).start()
    code = command.wait()
    ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    sys.stderr.write(f"the server ended: {ending}\n")
    sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)  # its workers, which nobody would end, and this process


def _end_with_parent(command: subprocess.Popen[bytes]) -> None:
    sys.stdin.buffer.read()  # ends when nobody holds the other end any more
    os.killpg(0, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
