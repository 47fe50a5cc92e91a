"""What a store refuses for good holds nothing else up, and is kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_records import a_run

import agentlightning as agl
from agentlightning.store import open_store
from agentlightning_server import bodies
from agentlightning_server.server import LightningServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LightningServer]:
    with LightningServer(f"sqlite:///{tmp_path}/store.db", port=0) as serving:
        yield serving


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    return tmp_path / "buffer"


@pytest.fixture
def attach(server: LightningServer, buffer: Path) -> Iterator[Callable[[], None]]:
    yield lambda: agl.attach(server.url, buffer=buffer)
    agl.detach()


async def outputs_in(url: str) -> list[object]:
    store = open_store(url)
    try:
        return [rollout.output for rollout in await store.rollouts("live")]
    finally:
        await store.close()


def record(*inputs: str) -> None:
    for number, given in enumerate(inputs):
        with agl.live("solver", input=given) as run:
            run.output = number


async def test_a_rollout_that_is_refused_is_set_aside_with_the_reason_and_the_others_go_on(
    server: LightningServer,
    attach: Callable[[], None],
    buffer: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 64 * 1024)
    attach()
    with caplog.at_level(logging.ERROR):
        record("a", "too large" * 10_000, "c")
        agl.detach(timeout=30)
    assert await outputs_in(server.url) == [0, 2]
    assert list(buffer.glob("*.live")) == []
    [kept] = (buffer / "refused").glob("*.live")
    assert "the body is larger than 64 KiB" in kept.with_suffix(".txt").read_text()
    [told] = [one.getMessage() for one in caplog.records if one.name == "agentlightning.online.delivery"]
    assert "refuses 1 of the recorded rollouts for good" in told
    assert str(kept) in told


async def test_what_was_set_aside_is_handed_over_when_it_is_put_back(
    server: LightningServer, attach: Callable[[], None], buffer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as smaller:
        smaller.setattr(bodies, "MAX_BODY_BYTES", 64 * 1024)
        attach()
        record("too large" * 10_000)
        agl.detach(timeout=30)
    [kept] = (buffer / "refused").glob("*.live")
    kept.rename(buffer / kept.name)
    attach()
    agl.detach(timeout=30)
    assert await outputs_in(server.url) == [0]
    assert os.listdir(buffer) == ["refused"]


async def test_what_is_refused_since_its_run_is_somebody_elses_waits(
    server: LightningServer, attach: Callable[[], None], buffer: Path
) -> None:
    store = open_store(server.url)
    await store.open_run(a_run("live"))
    attach()
    record("a")
    agl.detach(timeout=30)
    await store.close()
    assert not (buffer / "refused").exists()
    assert len(list(buffer.glob("*.live"))) == 1
