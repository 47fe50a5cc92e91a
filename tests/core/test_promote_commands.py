"""``agl promote``, ``agl promoted`` and ``agl rollback``: what they say, do, and exit with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from finished_run import url_in
from made_evaluations import make_run, prompt

from agentlightning import hookimpl
from agentlightning.cli import main
from agentlightning.plugins import plugins
from agentlightning.store import open_store
from agentlightning.store.promotions import Promotion

Agl = Callable[..., Result]

BAD, GOOD = [0.0] * 20 + [1.0] * 20, [0.0] * 8 + [1.0] * 32


@pytest.fixture
def agl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agl:
    """Runs ``agl`` in a folder whose store has the runs ``better`` and ``equal``, which were evaluated twice."""
    monkeypatch.chdir(tmp_path)

    async def fill() -> None:
        store = open_store(url_in(tmp_path))
        for id, outcomes in (("better", GOOD), ("equal", BAD)):
            await make_run(
                store,
                id,
                {0: (prompt("Old."), BAD), 1: (prompt(f"New, {id}."), outcomes)},
                promote={"alpha": 0.04, "enough": 77},
            )
        await store.close()

    asyncio.run(fill())
    return lambda *arguments: CliRunner().invoke(main, arguments)


@pytest.fixture
def told() -> Iterator[list[Promotion]]:
    """What plugins were told."""
    heard: list[Promotion] = []

    class Plugin:
        @hookimpl
        def promotion_changed(self, promotion: Promotion) -> None:
            heard.append(promotion)

    plugin = Plugin()
    plugins()._manager.register(plugin)
    yield heard
    plugins()._manager.unregister(plugin)


def test_what_is_better_is_promoted_and_rolled_back(agl: Agl, told: list[Promotion]) -> None:
    done = agl("promote", "better", "--target", "support")
    assert done.exit_code == 0, done.output
    assert "support: run better is promoted: better: 0.800 after 0.500 on 40 held-out tasks" in done.output
    assert "back with: agl rollback support" in done.output
    shown = agl("promoted", "support").output
    assert ("better" in shown, "promoted" in shown) == (True, True)
    back = agl("rollback", "support", "--reason", "users complain")
    assert back.exit_code == 0
    assert "support: run better is rolled back: users complain" in back.output
    assert "the agent has its own prompts and models again" in back.output
    assert [(one.target, one.status) for one in told] == [("support", "promoted"), ("support", "rolled_back")]
    again = agl("rollback", "support")
    assert again.exit_code == 2
    assert "nothing is in production for support" in again.output


def test_what_is_not_shown_to_be_better_exits_with_3_and_is_promoted_by_force_alone(
    agl: Agl, told: list[Promotion]
) -> None:
    refused = agl("promote", "equal")
    assert refused.exit_code == 3
    assert "not promoted: it is not shown to be better: 0.500 after 0.500" in refused.output
    assert (agl("promoted").output, told) == ("nothing was promoted\n", [])
    forced = agl("promote", "equal", "--force", "a demo")
    assert forced.exit_code == 0
    (promotion,) = told
    assert promotion.forced
    assert promotion.reason.startswith("forced: a demo (it is not shown to be better: ")
    assert agl("promote", "equal", "--force", " ").exit_code == 2


def test_a_canary_has_the_thresholds_of_its_runs_config_and_is_shown_as_it_goes(
    agl: Agl, told: list[Promotion]
) -> None:
    begun = agl("promote", "better", "--share", "0.1")
    assert begun.exit_code == 0, begun.output
    (canary,) = told
    assert (canary.status, canary.share, canary.alpha, canary.enough) == ("canary", 0.1, 0.04, 77)
    assert canary.evidence["gate"]["comparison"]["n"] == 40
    shown = agl("promoted").output
    assert "canary for live: 0 of 0 failed; without it 0 of 0 failed" in shown
    assert "canary, 10%" in shown
    waits = agl("promote", "equal", "--force", "a demo")
    assert waits.exit_code == 2
    assert "run better is a canary for live" in waits.output
    assert "run better is rolled back: by hand" in agl("rollback").output


def test_where_there_is_no_store_none_is_made(agl: Agl, tmp_path: Path) -> None:
    for command in (("promote", "better"), ("rollback",), ("promoted",)):
        result = agl(*command, "--store", f"sqlite:///{tmp_path}/none.db")
        assert result.exit_code == 2
        assert "there is no store at" in result.output
    assert not (tmp_path / "none.db").exists()


def test_what_is_no_model_is_not_served_for_a_target_and_it_is_said_what_is(agl: Agl) -> None:
    assert "nothing is in production for live" in agl("serve", "--target", "live").output
    agl("promote", "better")
    refused = agl("serve", "--target", "live")
    assert refused.exit_code == 2
    assert "run better (any, succeeded) left no model, and chose none" in refused.output
    assert "agl.attach(…, apply=True)" in refused.output
    assert "name a RUN, a model's FOLDER, or a --target" in agl("serve").output
