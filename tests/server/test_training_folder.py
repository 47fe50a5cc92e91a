"""What is kept of a training, read while it is written; and how it is concluded from that."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlightning_server.training import folder as folders
from agentlightning_server.training.ending import conclude
from agentlightning_server.training.folder import TrainingFolder
from agentlightning_server.training.records import Ended, Submission, Training
from agentlightning_server.training.watch import Watch


@given(text=st.text(max_size=60), size=st.integers(4, 9))
def test_a_log_that_is_read_in_parts_is_the_whole_log(text: str, size: int) -> None:
    written = text.encode(errors="replace")
    with TemporaryDirectory() as path, pytest.MonkeyPatch.context() as patched:
        patched.setattr(folders, "PAGE_BYTES", size)
        folder = TrainingFolder(Path(path))
        folder.log.write_bytes(written)
        parts, after = [], 0
        while True:
            part, after = folder.page(after)
            if not part:
                break
            parts.append(part)
    assert ("".join(parts), after) == (written.decode(), len(written))


def test_the_tail_of_a_log_is_whole_lines(tmp_path: Path) -> None:
    folder = TrainingFolder(tmp_path)
    folder.log.write_text("".join(f"line {number}\n" for number in range(2000)))
    text, end = folder.tail()
    lines = text.splitlines()
    assert lines == [f"line {number}" for number in range(2000 - len(lines), 2000)]
    assert (0 < len(text) <= folders.TAIL_BYTES, end) == (True, folder.log.stat().st_size)


async def test_who_waits_is_told_by_another_process_and_at_the_end(tmp_path: Path) -> None:
    folder = TrainingFolder(tmp_path / "training")
    folder.make(Submission(config={}, tasks=[]))
    folder.ring()  # nobody listens
    watch = Watch()
    watch.listen(folder.grown)
    for _ in range(2):
        news = watch.news()
        assert not news.done()
        folder.ring()
        await asyncio.wait_for(news, 30)
    news = watch.news()
    watch.close()
    assert news.done()
    folder.ring()


@pytest.mark.parametrize(
    ("ended", "stops", "log", "status", "says"),
    [
        (Ended(session="", exit_code=0), 0, "", "succeeded", None),
        (Ended(session="", exit_code=0), 1, "", "succeeded", None),
        (Ended(session="", exit_code=1), 0, "a\nerror: no spread\nmore", "failed", "no spread"),
        (Ended(session="", exit_code=3), 0, "a\n", "failed", "its process ended with exit code 3"),
        (Ended(session="", exit_code=143), 0, "", "cancelled", "stopped by a signal"),
        (Ended(session="", exit_code=143), 1, "", "cancelled", "asked to stop"),
        (Ended(session="", signal="SIGKILL"), 2, "", "cancelled", "asked to stop"),
        (
            Ended(session="", signal="SIGSEGV"),
            0,
            "error: of an earlier start\n",
            "failed",
            "its process was ended by SIGSEGV: killed by hand, or by the system for want of memory",
        ),
        (None, 0, "", "failed", "its process is gone, and the one that watched over it"),
        (None, 1, "", "cancelled", "asked to stop"),
    ],
)
def test_how_a_training_ended(ended: Ended | None, stops: int, log: str, status: str, says: str | None) -> None:
    training = Training(id="i", name="n", agent="a:b", status="running", submitted_at=1.0, queued_at=1.0)
    training.message = "asked to stop" if stops else None
    conclude(training, ended, stops=stops, last_words=log)
    assert (training.status, training.message) == (status, says)
    assert training.ended_at is not None
