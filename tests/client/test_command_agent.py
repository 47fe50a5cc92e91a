"""A command as the agent: what it is told, what its output is, how it fails, and that nothing of it is left running."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from processes import ends

from agentlightning.agent_here import Assignment, Performed
from agentlightning.records import Failure, Span
from agentlightning.store import open_store
from agentlightning_client.command_agent import MAX_OUTPUT, Command, command_here
from agentlightning_client.errors import ClientError

SERVER = "http://127.0.0.1:8080"


Perform = Callable[..., Coroutine[Any, Any, tuple[Performed, list[Span]]]]


@pytest.fixture
def perform(url: str) -> Perform:
    """Runs a command once; what came of it, and its spans. ``spans`` are those that the server has recorded of it."""

    async def run(
        program: str,
        input: Any = "heads or tails?",
        *,
        spans: Sequence[Span] = (),
        timeout: float = 20.0,
        answers: list[Span] | None = None,
    ) -> tuple[Performed, list[Span]]:
        recorded: list[Span] = []
        assignment = Assignment(rollout_id="r1", attempt=2, input=input, seed=0, answers=answers)
        store = open_store(url)
        try:
            store.add_spans(spans)
            await store.flush()
            here = command_here(Command.parse(program, SERVER + "/", "a key"), store)
            performed = await here(timeout, "--timeout")(assignment, recorded.extend)
        finally:
            await store.close()
        return performed, recorded

    return run


def python(code: str) -> str:
    return f'{sys.executable} -c "{code}"'


async def test_a_command_reads_its_input_and_writes_its_answer(perform: Perform) -> None:
    performed, spans = await perform("tr a-z A-Z")
    assert performed == Performed(output="HEADS OR TAILS?")
    assert [(span.kind, span.name, span.agent, span.attempt) for span in spans] == [("agent", "tr", "tr", 2)]


async def test_an_input_that_is_no_text_and_an_output_that_is_json_are_values(perform: Perform) -> None:
    performed, _ = await perform("cat", {"question": ["heads", 1]})
    assert performed.output == {"question": ["heads", 1]}


async def test_a_command_is_told_where_its_model_is(perform: Perform) -> None:
    names = "OPENAI_BASE_URL", "OPENAI_API_KEY", "AGL_ROLLOUT_ID"
    performed, _ = await perform(python(f"import os; print(*[os.environ[name] for name in {names}])"))
    assert performed.output == f"{SERVER}/rollouts/r1/attempts/2/v1 a key r1"


async def test_a_script_gives_its_agent_its_name(perform: Perform, tmp_path: Path) -> None:
    script = tmp_path / "flip.sh"
    script.write_text("echo heads", encoding="utf-8")
    performed, spans = await perform(f"sh {script}")
    assert performed.output == "heads"
    assert spans[0].agent == "flip.sh"


async def test_a_command_need_not_read_its_input(perform: Perform) -> None:
    performed, _ = await perform("true", "x" * 10**6)
    assert performed == Performed(output="")


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("sh -c 'echo no coin >&2; exit 3'", "sh ended with exit code 3: no coin"),
        ("sh -c 'kill -SEGV $$'", "sh ended with signal SIGSEGV: it said nothing"),
        ("no_such_program", "No such file or directory: 'no_such_program'"),
        (f"head -c {MAX_OUTPUT + 1} /dev/zero", "wrote more than 16,777,216 bytes"),
    ],
)
async def test_a_command_that_fails_says_how(perform: Perform, program: str, says: str) -> None:
    performed, spans = await perform(program)
    assert performed.failure is not None
    assert performed.failure.type == "agent_error"
    assert performed.failure.fault == "agent"
    assert says in performed.failure.message
    assert all(span.failure is not None for span in spans)


async def test_a_command_that_takes_too_long_is_killed_with_what_it_has_started(
    perform: Perform, tmp_path: Path
) -> None:
    file = tmp_path / "pids"
    performed, _ = await perform(f"sh -c 'sleep 60 & echo $! $$ > {file}; wait'", timeout=1.0)
    assert performed.failure is not None
    assert performed.failure.type == "timeout"
    assert "--timeout = 1 s" in performed.failure.message
    for pid in file.read_text().split():
        assert ends(int(pid))


async def test_a_command_that_is_cancelled_is_killed(perform: Perform, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    running = asyncio.create_task(perform(f"sh -c 'echo $$ > {tmp_path}/begun; sleep 60'"))
    pid = int(await asyncio.to_thread((tmp_path / "begun").read_text))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ends(pid)


@pytest.mark.parametrize(("program", "own"), [("false", "agent_error"), ("true", None)])
async def test_a_command_whose_last_call_found_no_model_is_tried_again(
    perform: Perform, program: str, own: str | None
) -> None:
    lost = Failure(type="engine_unavailable", message="503", fault="infrastructure")
    performed, _ = await perform(program, spans=[_call(1, None), _call(2, lost)])
    assert performed.failure == lost
    performed, _ = await perform(program, spans=[_call(3, None)])
    assert (performed.failure.type if performed.failure else None) == own


def _call(at: int, failure: Failure | None) -> Span:
    return Span(
        id=f"s{at}",
        rollout_id="r1",
        attempt=2,
        index=at,
        kind="llm",
        name="chat",
        started_at=float(at),
        ended_at=float(at),
        failure=failure,
    )


async def test_recorded_answers_are_for_agents_with_adapters(perform: Perform) -> None:
    performed, _ = await perform("true", answers=[])
    assert performed.failure is not None
    assert performed.failure.type == "not_runnable"
    assert "replay" in performed.failure.message


@pytest.mark.parametrize(
    ("program", "server", "says"),
    [
        ("", SERVER, "name a program"),
        ("sh -c 'echo", SERVER, "No closing quotation"),
        ("cat", "sqlite:///store.db", "agl server --store sqlite:///store.db"),
    ],
)
def test_what_is_no_command_is_refused(program: str, server: str, says: str) -> None:
    with pytest.raises(ClientError, match=says):
        Command.parse(program, server)
