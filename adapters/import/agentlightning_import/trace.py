"""The steps of a trace → a rollout: its tree, its agents, its input, its output and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agentlightning import semconv
from agentlightning.adapterkit.attributes import agent_attributes
from agentlightning.importers.base import Importer, digest
from agentlightning.records import Failure, Reward, Rollout, Span, Task
from agentlightning.store.base import Recorded
from agentlightning_import.scores import Score, merged

INPUT, OUTPUT = "input.value", "output.value"
LABEL = "gen_ai.evaluation.score.label"
COLLECTION = "imported"
UNKNOWN = 0.0
"""When a span began of which nothing says it."""

_deterministic = msgspec.json.Encoder(order="sorted")


@dataclass(slots=True)
class Step:
    """A step as its export has it: a span under the source's ids; ``span.agent`` is set where it is an agent itself."""

    span: Span
    input: Any = None
    output: Any = None


@dataclass(slots=True)
class Trace:
    """What an export says of a trace as a whole."""

    id: str
    where: str
    name: str | None = None
    input: Any = None
    output: Any = None
    at: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


class Assembler:
    """Makes rollouts for an importer; ``noun`` is what the tool calls a step."""

    def __init__(self, importer: Importer, noun: str) -> None:
        self._importer, self._noun = importer, noun
        self._now = time.time()

    def rollout(self, trace: Trace, steps: Sequence[Step], scores: Iterable[Score] = ()) -> Recorded:
        """The rollout of a trace. ``scores`` are in the order in which they count.

        A trace that has not one step at its top gets a span of its own around them.
        """
        scores = list(scores)
        by_id: dict[str, Step] = {step.span.id: step for step in steps}
        if len(by_id) < len(steps):
            self._unread(trace, "it is there more than once: the last counts", len(steps) - len(by_id))
        self._mend(trace, by_id)
        root = self._root(trace, by_id)
        ordered = _in_order(by_id)
        spans = [step.span for step in ordered]
        _name_agents(by_id, ordered, trace.name or root.span.name)
        root.span.attributes |= trace.attributes
        for step in ordered:
            _keep_content(step, step is root)
        own = None if root.span.generation is not None else root.input
        task_input = _first_known(trace.input, own, *(_question(span) for span in spans))
        rollout = self._rollout(trace, root, spans, task_input)
        self._place(trace, rollout, root, by_id, scores, spans)
        self._rename(rollout, spans)
        return Recorded(task=Task(id=rollout.task_id, input=task_input), rollout=rollout, spans=spans)

    def late_rewards(self, trace_id: str, scores: Iterable[Score]) -> tuple[str, list[Reward]]:
        """The id of the rollout of a trace that is in no file, and rewards of it."""
        rollout_id = self._importer.rollout_id(trace_id)
        placed = merged(scores, self._now)
        return rollout_id, [_of_step(reward, step and digest(rollout_id, step)) for step, reward in placed]

    def _unread(self, trace: Trace, reason: str, count: int = 1) -> None:
        self._importer.unread.add(self._noun, reason, trace.where, count)

    def _mend(self, trace: Trace, steps: dict[str, Step]) -> None:
        """Puts a step whose parent is not there, or is under itself, at the top."""
        lost = [step for step in steps.values() if step.span.parent_id is not None and step.span.parent_id not in steps]
        for step in lost:
            step.span.parent_id = None
        if lost:
            self._unread(trace, "what it is under is not in these files: it stands at the top", len(lost))
        reached: set[str] = set()
        for step in steps.values():
            path: dict[str, Step] = {}
            while step.span.id not in reached and step.span.id not in path:
                path[step.span.id] = step
                above = step.span.parent_id
                if above is None:
                    break
                step = steps[above]
            if step.span.id in path and step.span.parent_id is not None:
                self._unread(trace, "it is under itself: it stands at the top")
                step.span.parent_id = None
            reached |= path.keys()

    def _root(self, trace: Trace, steps: dict[str, Step]) -> Step:
        tops = [step for step in steps.values() if step.span.parent_id is None]
        times = [step.span.started_at for step in steps.values() if step.span.started_at != UNKNOWN]
        begun = trace.at if trace.at is not None else min(times, default=self._now)
        for step in steps.values():
            if step.span.started_at == UNKNOWN:
                step.span.started_at = begun
        if len(tops) == 1:
            return tops[0]
        ends = [step.span.ended_at or step.span.started_at for step in steps.values()]
        span = Span(
            id=f"trace {trace.id}",
            rollout_id="",
            kind="agent",
            name=trace.name or "trace",
            agent=trace.name,
            started_at=min([begun, *times]),
            ended_at=max([begun, *ends]),
            attributes=agent_attributes("workflow"),
        )
        for step in tops:
            step.span.parent_id = span.id
        steps[span.id] = Step(span, trace.input, trace.output)
        return steps[span.id]

    def _rollout(self, trace: Trace, root: Step, spans: list[Span], input: Any) -> Rollout:
        task_id = digest(_deterministic.encode(input).decode(errors="replace")) if input is not None else trace.id
        failure = _failure(root.span, spans)
        run_id = self._importer.run_id
        own = None if root.span.generation is not None else root.output
        started = min(span.started_at for span in spans)
        return Rollout(
            id=self._importer.rollout_id(trace.id),
            run_id=run_id,
            group_id=digest(run_id, task_id),
            task_id=task_id,
            purpose="observe",
            collection=COLLECTION,
            attempt=1,
            status="failed" if failure is not None else "succeeded",
            output=_first_known(trace.output, own, _last_answer(spans)),
            failure=failure,
            created_at=started,
            started_at=started,
            ended_at=max(span.ended_at or span.started_at for span in spans),
        )

    def _place(
        self, trace: Trace, rollout: Rollout, root: Step, steps: dict[str, Step], scores: list[Score], spans: list[Span]
    ) -> None:
        """Gives the rollout its rewards; a score without a number becomes an annotation."""
        known = []
        for score in scores:
            if score.step is not None and score.step not in steps:
                self._importer.unread.add("score", f"the {self._noun} that it is of is not in its trace", trace.where)
                continue
            whole = score.step is None or score.step == root.span.id
            known.append(score._replace(step=None) if whole else score)
        rollout.rewards = [
            _of_step(reward, step and digest(rollout.id, step)) for step, reward in merged(known, self._now)
        ]
        labelled = [score for score in known if score.value is None]
        for place, score in enumerate(labelled):
            spans.append(_label(score, f"{place}", score.step or root.span.id, len(spans), rollout))

    def _rename(self, rollout: Rollout, spans: list[Span]) -> None:
        for index, span in enumerate(spans):
            span.id, span.rollout_id, span.index = digest(rollout.id, span.id), rollout.id, index
            span.parent_id = digest(rollout.id, span.parent_id) if span.parent_id is not None else None


def _of_step(reward: Reward, span_id: str | None) -> Reward:
    return reward if span_id is None else msgspec.structs.replace(reward, span_id=span_id, step=True)


def _label(score: Score, place: str, parent: str, index: int, rollout: Rollout) -> Span:
    at = score.at if score.at is not None else rollout.ended_at or rollout.created_at
    about = {semconv.EVALUATION_NAME: score.name, LABEL: score.label, semconv.EVALUATION_EXPLANATION: score.reason}
    return Span(
        id=f"label {score.name} {score.step or ''} {place}",
        rollout_id="",
        parent_id=parent,
        index=index,
        kind="annotation",
        name=score.name,
        started_at=at,
        ended_at=at,
        attributes={name: value for name, value in about.items() if value is not None},
    )


def _in_order(steps: dict[str, Step]) -> list[Step]:
    """By when they began; where clocks differ, never before the step that they are under."""
    begun: dict[str, tuple[float, int]] = {}

    def place(step: Step) -> tuple[float, int]:
        path = []
        while step.span.id not in begun:
            path.append(step)
            if step.span.parent_id is None:
                break
            step = steps[step.span.parent_id]
        at, depth = begun.get(step.span.id, (0.0, -1))
        for link in reversed(path):
            at, depth = max(at, link.span.started_at), depth + 1
            begun[link.span.id] = (at, depth)
        return begun[path[0].span.id] if path else begun[step.span.id]

    return sorted(steps.values(), key=place)


def _name_agents(steps: dict[str, Step], ordered: list[Step], name: str) -> None:
    for step in ordered:
        span = step.span
        above = steps.get(span.parent_id or "")
        if span.agent is None:
            span.agent = above.span.agent if above is not None else name


def _keep_content(step: Step, is_root: bool) -> None:
    """Keeps what went in and came out, where that is nowhere else: the root's is the task and the output."""
    if is_root or step.span.kind in ("tool", "retrieval") or step.span.generation is not None:
        return
    for name, value in ((INPUT, step.input), (OUTPUT, step.output)):
        if value is not None:
            step.span.attributes.setdefault(name, value)


def _first_known(*values: Any) -> Any:
    return next((value for value in values if value is not None and value != "" and value != {}), None)


def _question(span: Span) -> Any:
    """The text of the only message of a user; else the messages, without the system's."""
    messages = span.generation.messages if span.generation is not None else []
    others = [message for message in messages if message.get("role") not in ("system", "developer")]
    if len(others) == 1 and isinstance(others[0].get("content"), str):
        return others[0]["content"] or None
    return others or None


def _calls(spans: list[Span]) -> list[Span]:
    return sorted((span for span in spans if span.kind == "llm"), key=lambda span: span.ended_at or span.started_at)


def _last_answer(spans: list[Span]) -> Any:
    answers = [call.generation.response for call in _calls(spans) if call.generation and call.generation.response]
    if not answers:
        return None
    return answers[-1].get("content") or (answers[-1] if answers[-1].get("tool_calls") else None)


def _failure(root: Span, spans: list[Span]) -> Failure | None:
    """That of the root. An agent that swallowed the infrastructure's failure of its last call has no valid result
    either; and where the root's is what came up from further down, the one there knows the type and the fault."""
    calls = _calls(spans)
    last = calls[-1].failure if calls else None
    if last is not None and last.fault == "infrastructure":
        return last
    if root.failure is None or root.failure.type != "agent_error" or root.failure.exception is None:
        return root.failure
    causes = [span.failure for span in spans if span.failure is not None and span.failure.type != "agent_error"]
    same = [cause for cause in causes if cause.exception == root.failure.exception]
    return same[-1] if same else root.failure
