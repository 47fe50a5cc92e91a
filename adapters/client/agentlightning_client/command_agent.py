"""An agent that is a command, in whatever language: a Lightning Server records what it asks its model."""

from __future__ import annotations

import asyncio
import os
import shlex
from asyncio.subprocess import PIPE
from contextlib import suppress
from typing import Any

import msgspec

from agentlightning.adapter import Adapter
from agentlightning.agent_here import AgentHere, Assignment, Keep, Performed
from agentlightning.child_processes import ending, kill_group
from agentlightning.recording import current, span
from agentlightning.records import Failure
from agentlightning.store.base import Store
from agentlightning_client.errors import ClientError
from agentlightning_client.worker import Performing

MAX_OUTPUT = 2**24
"""Bytes that a command may write to its standard output."""
TAIL = 2000
"""Bytes of its standard error that a failure tells."""
CHUNK = 2**16


class Command(msgspec.Struct, frozen=True):
    """What is started for each rollout: a program with its arguments, and the URL of the server that it is to call."""

    program: tuple[str, ...]
    server: str
    key: str | None = None

    @classmethod
    def parse(cls, text: str, server: str, key: str | None = None) -> Command:
        """From a command line, as a shell reads it. Raises `ClientError` where there is nothing in it, or no server."""
        try:
            program = tuple(shlex.split(text))
        except ValueError as error:
            raise ClientError(f"--command {text!r}: {error}") from None
        if not program:
            raise ClientError("--command: name a program, with its arguments")
        if not server.startswith(("http://", "https://")):
            raise ClientError(
                f"a command's model calls are recorded by a Lightning Server, and {server} is none: start one with "
                f"`agl server --store {server}`, and give its http:// address"
            )
        return cls(program, server.rstrip("/"), key)

    @property
    def name(self) -> str:
        """The name of its agent: the script's, where an interpreter runs one."""
        return os.path.basename(next((part for part in self.program[1:] if os.path.isfile(part)), self.program[0]))

    def environment(self, rollout_id: str, attempt: int) -> dict[str, str]:
        """The variables that tell an OpenAI client where to go, beside this process's own."""
        return {
            **os.environ,
            "OPENAI_BASE_URL": f"{self.server}/rollouts/{rollout_id}/attempts/{attempt}/v1",
            "OPENAI_API_KEY": self.key or "none",
            "AGL_ROLLOUT_ID": rollout_id,
        }


class CommandAdapter(Adapter):
    """Starts the command with the task's input on its standard input: text as it is, anything else as JSON. What it
    writes to its standard output is what the agent returns: the value where it is JSON, else the text.

    A command that does not end with exit code 0 has failed. It is killed, with all that it has started, where it is
    cancelled or takes too long.
    """

    name = "command"

    def accepts(self, agent: Any) -> bool:
        return isinstance(agent, Command)

    async def run(self, agent: Command, input: Any) -> Any:
        recorder = current()
        if recorder is None:
            raise ClientError("a command is run for a rollout, and there is none")
        data = input.encode() if isinstance(input, str) else msgspec.json.encode(input)
        environment = agent.environment(recorder.rollout_id, recorder.attempt)
        with span(agent.name, "agent", agent=agent.name):
            process = await asyncio.create_subprocess_exec(
                *agent.program, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, start_new_session=True
            )
            try:
                output, errors, _ = await asyncio.gather(
                    _all_of(process.stdout), _tail_of(process.stderr), _feed(process.stdin, data)
                )
                code = await process.wait()
            finally:
                kill_group(process.pid)
                await process.wait()
            if code != 0:
                raise ClientError(f"{agent.name} ended with {ending(code)}: {errors.strip() or 'it said nothing'}")
        return _value(output.strip())


class CommandAgent:
    """Runs a command on tasks, each for ``timeout`` seconds at most, which is the option ``limit``."""

    def __init__(self, command: Command, store: Store, *, timeout: float, limit: str) -> None:
        self._store = store
        self._here = AgentHere(command, CommandAdapter(), timeout=timeout, limit=limit)

    async def perform(self, assignment: Assignment, keep: Keep) -> Performed:
        """Runs it once. Where its last model call failed, and that was the infrastructure's fault, so was this."""
        if assignment.answers is not None:
            message = "a command is not run again with recorded answers: leave credit `replay` to agents with adapters"
            return Performed(failure=Failure(type="not_runnable", message=message, fault="infrastructure"))
        performed = await self._here.perform(assignment, keep)
        return msgspec.structs.replace(performed, failure=await self._failure(assignment, performed.failure))

    async def _failure(self, assignment: Assignment, failure: Failure | None) -> Failure | None:
        if failure is not None and failure.type != "agent_error":
            return failure
        spans = await self._store.spans(assignment.rollout_id, attempt=assignment.attempt)
        calls = [span for span in spans if span.kind == "llm"]
        last = max(calls, key=lambda span: span.started_at, default=None)
        if last is not None and last.failure is not None and last.failure.fault == "infrastructure":
            return last.failure
        return failure


def command_here(command: Command, store: Store) -> Performing:
    """A command as the agent of a `Worker`."""
    return lambda timeout, limit: CommandAgent(command, store, timeout=timeout, limit=limit).perform


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    assert stream is not None
    with suppress(BrokenPipeError, ConnectionResetError):  # it need not read its input
        stream.write(data)
        await stream.drain()
    stream.close()


async def _all_of(stream: asyncio.StreamReader | None) -> bytes:
    assert stream is not None
    output = bytearray()
    while chunk := await stream.read(CHUNK):
        output += chunk
        if len(output) > MAX_OUTPUT:
            raise ClientError(f"the command wrote more than {MAX_OUTPUT:,} bytes to its standard output")
    return bytes(output)


async def _tail_of(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    tail = b""
    while chunk := await stream.read(CHUNK):
        tail = (tail + chunk)[-TAIL:]
    return tail.decode(errors="replace")


def _value(output: bytes) -> Any:
    try:
        return msgspec.json.decode(output)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return output.decode(errors="replace")
