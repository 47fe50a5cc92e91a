"""A model call that belongs to no rollout while rollouts run: said once, with its place; an error in a training run."""

from __future__ import annotations

import contextvars
import logging
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from agentlightning.errors import AdapterError
from agentlightning.recording import Recorder, current, outside, recording, stray_calls, strays
from agentlightning.records import Policy, Resource

POLICY = Policy(name="policy", model="tiny", base_url="http://engine/v1")
SECONDS = 20


@pytest.fixture(autouse=True)
def no_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "_strays", {})


def rollout(*resources: Resource) -> Recorder:
    return Recorder("r", 1, lambda spans: None, resources)


def call() -> None:
    """A model call, as the model layer tells of one in no rollout."""
    contextvars.Context().run(strays.belongs_to_none, "gpt", "api.example.com")


def test_without_a_rollout_it_is_nobodys_business() -> None:
    call()
    assert stray_calls() == []


def test_it_is_said_once_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    with recording(rollout()), caplog.at_level(logging.ERROR):
        for _ in range(3):
            call()
    (stray,) = stray_calls()
    assert (stray.model, stray.host, stray.count, stray.refused) == ("gpt", "api.example.com", 3, False)
    file, line = stray.location.rsplit(":", 1)
    assert Path(file).name == Path(__file__).name
    assert "contextvars.Context().run" in Path(__file__).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    assert [stray.location in record.getMessage() for record in caplog.records] == [True]


def test_in_a_training_run_it_is_an_error() -> None:
    with recording(rollout(POLICY)), pytest.raises(AdapterError, match=r"gpt at api\.example\.com.*not sent"):
        call()
    assert [stray.refused for stray in stray_calls()] == [True]


def test_one_rollout_that_is_trained_is_enough() -> None:
    with recording(rollout()), recording(rollout(POLICY)), pytest.raises(AdapterError):
        call()


def test_a_rollout_that_has_ended_counts_no_more() -> None:
    with recording(rollout(POLICY)):
        pass
    call()
    assert stray_calls() == []


def test_a_rollout_that_is_recorded_in_two_places_ends_with_the_last() -> None:
    recorder = rollout(POLICY)
    with recording(recorder):
        with recording(recorder):
            pass
        with pytest.raises(AdapterError):
            call()


def test_what_is_declared_to_be_outside_is_no_stray() -> None:
    with recording(rollout(POLICY)), outside():
        strays.belongs_to_none("gpt", "api.example.com")
    assert stray_calls() == []


def test_the_place_is_a_librarys_threads_name_where_no_code_of_the_user_calls() -> None:
    with recording(rollout()):
        thread = contextvars.Context().run(
            lambda: threading.Timer(0, strays.belongs_to_none, ("gpt", "api.example.com"))
        )
        thread.name = "a-worker"
        contextvars.Context().run(thread.start)
        thread.join(SECONDS)
    assert [stray.location for stray in stray_calls()] == ["thread a-worker"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no process")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_knows_that_its_rollout_is_in_another() -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def look() -> None:
        recorder = current()
        there.send((recorder is not None and recorder.forked, strays.any_active()))

    recorder = rollout(POLICY)
    with recording(recorder):
        process = context.Process(target=look, daemon=True)
        process.start()
        process.join(SECONDS)
        process.kill()
    assert here.poll(0)
    assert here.recv() == (True, False)
    assert not recorder.forked
