"""A deployed agent, in a process of its own: it answers so many questions, and says the id of each answer's rollout.

``python live_agent.py URL BUFFER COUNT WAY``: with ``fork`` in a forked process, with ``hang`` the last answer never
ends, with ``kill`` the process ends itself, as the kernel would, when COUNT answers are on the disk.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import agentlightning as agl


def answer(number: int, *, hang: bool = False) -> None:
    with agl.live("support", input=number) as run:
        agl.annotate("thought", about=number)
        os.write(1, f"{run.rollout_id}\n".encode())
        if hang:
            signal.pause()
        run.output = number


def wait_for_disk(folder: Path, count: int) -> None:
    """Returns when so many rollouts were written, ended or not."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = 0
        for path in folder.glob("*.live"):
            try:
                with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
                    found += db.execute("SELECT count(*) FROM spans").fetchone()[0]
            except sqlite3.Error:
                continue
        if found >= count:
            return
        time.sleep(0.01)
    raise TimeoutError("what was recorded did not reach the disk")


def main(url: str, buffer: str, count: int, way: str) -> None:
    agl.attach(url, buffer=buffer)
    if way == "fork":
        answer(-1)
        child = os.fork()
        for number in range(count):
            answer(number if child else number + count)
        if child == 0:
            agl.detach(timeout=30)
            os._exit(0)
        os.waitpid(child, 0)
    else:
        for number in range(count):
            answer(number)
    if way == "kill":
        wait_for_disk(Path(buffer), count)
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "hang":
        answer(count, hang=True)
    agl.detach(timeout=30)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
