"""Processes that run an agent, one rollout at a time each: what ends or hangs one is a failure of its rollout alone."""

from __future__ import annotations

from agentlightning.agent_here import Assignment, Keep, Performed
from agentlightning.child_processes import START_SECONDS, ChildProcess, ProcessGoneError, ProcessPool
from agentlightning.errors import AdapterError
from agentlightning.records import Failure, Record, Span, decode, encode
from agentlightning.threads import call_in_thread

GRACE_SECONDS = 10.0
"""How long past its time-out an agent is waited for that is to end by itself; then its process is killed."""


class Agent(Record, kw_only=True):
    """What a process runs: the agent by name, for so many seconds at most."""

    name: str
    timeout: float


class Started(Record, kw_only=True, tag="started"):
    """A process is ready, or why it cannot be."""

    error: str | None = None


class Recorded(Record, kw_only=True, tag="recorded"):
    """Spans that have ended."""

    spans: list[Span]


class Ended(Record, kw_only=True, tag="ended"):
    """An attempt has ended."""

    performed: Performed


Answer = Started | Recorded | Ended


class AgentProcesses:
    """The processes of one agent: started when needed, kept for the next rollout, killed with all that they have
    started where they take too long or end."""

    def __init__(self, agent: Agent) -> None:
        self._pool = ProcessPool(lambda: _AgentProcess(agent))

    async def start(self) -> None:
        """Starts the first one. Raises `AdapterError` where it cannot load the agent."""
        with self._pool.process() as process:
            await call_in_thread(process.start)

    async def perform(self, assignment: Assignment, keep: Keep) -> Performed:
        """Runs the agent once, in a process that runs nothing else meanwhile."""
        with self._pool.process() as process:  # which is killed where this is cancelled
            return await call_in_thread(process.perform, assignment, keep)

    def close(self) -> None:
        """Ends them all."""
        self._pool.close()


class _AgentProcess(ChildProcess):
    def __init__(self, agent: Agent) -> None:
        super().__init__("agentlightning_client.agent_process")
        self._agent = agent
        self._ready = False

    def start(self) -> None:
        """Blocks until the agent is loaded. Raises `AdapterError` where it cannot be."""
        if self._ready:
            return
        try:
            answer = self._answer(encode(self._agent), START_SECONDS, lambda spans: None)
        except ProcessGoneError as error:
            raise AdapterError(f"{self._agent.name}: its process {error} while it loaded the agent") from error
        if isinstance(answer, Started) and answer.error is None:
            self._ready = True
            return
        self.kill()
        raise AdapterError(f"{self._agent.name}: {answer.error if isinstance(answer, Started) else 'no answer'}")

    def perform(self, assignment: Assignment, keep: Keep) -> Performed:
        """Blocks until the agent has ended, or its process has."""
        try:
            self.start()
            answer = self._answer(encode(assignment), self._agent.timeout + GRACE_SECONDS, keep)
        except AdapterError as error:  # it could be loaded before, in the first process
            return Performed(failure=Failure(type="not_runnable", message=str(error), fault="infrastructure"))
        except ProcessGoneError as error:
            if error.too_long:
                late = f"the agent took longer than runner.timeout = {self._agent.timeout:g} s, and did not stop"
                return Performed(failure=Failure(type="timeout", message=late))
            return Performed(failure=Failure(type="agent_error", message=f"the agent's process {error}"))
        if not isinstance(answer, Ended):
            raise TypeError(f"expected the end of an attempt, got {answer!r}")
        failure = answer.performed.failure
        if failure is not None and failure.type == "timeout":  # what it has started may run still
            self.kill()
        return answer.performed

    def _answer(self, request: bytes, seconds: float, keep: Keep) -> Started | Ended:
        """The answer to a request; spans that come before it are handed to ``keep``. Raises `ProcessGoneError`."""
        with self.asked(request, seconds) as next_answer:
            while True:
                answer: Answer = decode(next_answer(), Answer)
                if not isinstance(answer, Recorded):
                    return answer
                keep(answer.spans)
