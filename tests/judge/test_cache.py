"""What was replied once is not asked again."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from judge.scripted import RUBRIC, by_worth, judge, make, rollouts, total, values
from stub_answers import text
from stub_server import StubServer

from agentlightning.errors import ConfigError
from agentlightning_judge.cache import FILE, ReplyCache


async def test_the_same_group_is_asked_about_once(stub: StubServer, tmp_path: Path) -> None:
    stub.reply(by_worth())
    made = [make(stub.base_url, cache=str(tmp_path / "judge")) for _ in range(2)]
    first, second = [await judge(one, rollouts("4", "four")) for one in made]
    assert values(first) == values(second)
    assert [reward.reason for reward in first] == [reward.reason for reward in second]
    assert len(stub.requests) == 1
    assert (total(first, "calls"), total(second, "calls"), total(second, "cached")) == (1, 0, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"rubric": "The answer is short."},
        {"model": {"model": "other"}},
        {"model": {"temperature": 0.5}},
        {"mode": "pairwise"},
        {"show_expected": True},
    ],
)
async def test_another_question_is_asked(stub: StubServer, tmp_path: Path, other: dict[str, Any]) -> None:
    stub.reply(by_worth())
    for options in ({"rubric": RUBRIC}, other):
        await judge(make(stub.base_url, cache=str(tmp_path), **options), rollouts("4", "four"))
    assert len(stub.requests) > 1


async def test_a_reply_that_cannot_be_used_is_not_kept(stub: StubServer, tmp_path: Path) -> None:
    one = make(stub.base_url, cache=str(tmp_path), retries=0)
    stub.reply(text("no"), by_worth())
    assert values(await judge(one, rollouts("4", "four"))) == [None, None]
    assert values(await judge(one, rollouts("4", "four"))) == [0.0, 1.0]


async def test_without_a_cache_all_is_asked(stub: StubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stub.reply(by_worth())
    for _ in range(2):
        await judge(make(stub.base_url, cache=None), rollouts("4", "four"))
    assert len(stub.requests) == 2
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    ReplyCache(tmp_path / "judge").put("key", "reply")
    assert stat.S_IMODE((tmp_path / "judge").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "judge" / FILE).stat().st_mode) == 0o600


def test_threads_and_processes_may_share_it(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        done = processes.starmap_async(_fill, [(str(tmp_path), number) for number in range(2)])
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda number: _fill(str(tmp_path), number), range(2, 6)))
        done.get(timeout=60)
    cache = ReplyCache(tmp_path)
    assert [cache.get(f"{number}/{place}") for number in range(6) for place in range(20)] == ["reply"] * 120


def _fill(folder: str, number: int) -> None:
    cache = ReplyCache(folder)
    for place in range(20):
        cache.put(f"{number}/{place}", "reply")


@pytest.mark.parametrize("broken", ["a file in place of the folder", "no database", "other tables"])
async def test_one_that_cannot_be_used_is_said_once_and_costs_no_score(
    stub: StubServer, tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "judge"
    if broken == "a file in place of the folder":
        folder.write_text("")
    else:
        folder.mkdir()
        if broken == "no database":
            (folder / FILE).write_bytes(b"x" * 4096)
        else:
            with sqlite3.connect(folder / FILE) as connection:
                connection.execute("CREATE TABLE replies (other INTEGER)")
    stub.reply(by_worth())
    one = make(stub.base_url, cache=str(folder))
    assert [values(await judge(one, rollouts("4", "four"))) for _ in range(2)] == [[0.0, 1.0]] * 2
    assert len([record for record in caplog.records if "cannot be used" in record.getMessage()]) == 1


async def test_a_kept_reply_that_is_damaged_is_asked_for_again(stub: StubServer, tmp_path: Path) -> None:
    stub.reply(by_worth())
    one = make(stub.base_url, cache=str(tmp_path))
    await judge(one, rollouts("4", "four"))
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE replies SET reply = 'damaged'")
    assert values(await judge(one, rollouts("4", "four"))) == [0.0, 1.0]
    assert len(stub.requests) == 2


def test_a_key_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"reward\.config\.model\.api_key_env: the environment variable JUDGE_KEY"):
        make("http://127.0.0.1:9/v1", model={"api_key_env": "JUDGE_KEY"})


def test_a_judge_is_asked_from_one_event_loop_after_another(stub: StubServer) -> None:
    stub.reply(by_worth())
    one = make(stub.base_url)
    assert [values(asyncio.run(judge(one, rollouts("4", "four")))) for _ in range(2)] == [[0.0, 1.0]] * 2
