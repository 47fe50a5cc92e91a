"""The candidates of a run: tried on tasks, counted, and dropped where they are gone."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from agentlightning import semconv
from agentlightning.algorithm import Run
from agentlightning.causes import explain_failures
from agentlightning.errors import AlgorithmError
from agentlightning.model_routing import first_user_text
from agentlightning.promotion.spending import price_of
from agentlightning.recording import matches
from agentlightning.records import AnyResource, Failure, ModelChoice, Rollout, Span, Task
from agentlightning_selection.config import Candidate, SelectionConfig
from agentlightning_selection.front import NO_PICTURE, Point, draw, on_front, write_table

logger = logging.getLogger(__name__)

RESOURCE = "model"
"""The name of what a selection publishes, a choice or a router."""
GONE_AFTER = 5
"""Rollouts in a row that the infrastructure broke, each tried again as often as the runner does: the model is gone."""


@dataclass(frozen=True)
class Trial:
    """One rollout: what it was worth (None: it cannot be scored), its dollars, the seconds of its model calls (None:
    none was answered), what its user said first, the choice that a router made, and why it broke down."""

    task_id: str
    outcome: float | None
    dollars: float
    seconds: float | None
    text: str
    choice: str | None
    failure: Failure | None


class Contest:
    """Runs candidates on tasks, and keeps count: ``rollouts`` so far, and those candidates that are ``gone``."""

    def __init__(self, run: Run, config: SelectionConfig) -> None:
        self.run = run
        self.labels = labels_of(config.candidates)
        self.agents = tuple(config.agents if config.agents is not None else run.train)
        self.choices = [_choice(candidate, self.agents, place) for place, candidate in enumerate(config.candidates)]
        self.rollouts = 0
        self.gone: dict[int, str] = {}
        self._broken: list[list[Failure]] = [[] for _ in self.choices]

    @property
    def there(self) -> list[int]:
        """The candidates that are not gone."""
        return [place for place in range(len(self.choices)) if place not in self.gone]

    @property
    def named(self) -> tuple[ModelChoice, ...]:
        """The choices of a router, each by its label."""
        pairs = zip(self.choices, self.labels, strict=True)
        return tuple(msgspec.structs.replace(choice, name=label) for choice, label in pairs)

    async def begin(self) -> None:
        """Publishes the first candidate, checks the first rollout, and evaluates."""
        await self.run.publish(self.choices[0])
        await self.run.check()
        await self.run.evaluate(step=0)

    async def try_one(self, place: int, tasks: Sequence[Task], *, step: int) -> list[Trial]:
        """A candidate's rollouts of tasks, in their order. It is gone where the last ones broke down in a row."""
        trials = await self.collect(self.choices[place], tasks, step=step, key=f"{step}/{place}")
        for trial in trials:
            self.note(place, trial)
        return trials

    async def collect(self, resource: AnyResource, tasks: Sequence[Task], *, step: int, key: str) -> list[Trial]:
        """One rollout of each task with a resource, in their order."""
        trials = []
        async for group in self.run.collect(tasks, step=step, resources=[resource], key=key):
            members = [(member.rollout, member.spans) for member in group.rollouts]
            members += [(rollout, await self.run.spans(rollout)) for rollout in group.excluded]
            trials += [self.trial(rollout, spans, resource) for rollout, spans in members]
        self.rollouts += len(trials)
        return trials

    def trial(self, rollout: Rollout, spans: Sequence[Span], resource: AnyResource) -> Trial:
        """What a rollout that ended says of the candidate that it ran with."""
        calls = [span for span in spans if span.kind == "llm" and matches(span.agent, self.agents)]
        answered = [span for span in calls if span.failure is None]
        failure = rollout.failure if rollout.failure is not None and rollout.failure.fault == "infrastructure" else None
        if failure is None and calls and not answered:
            failure = next((span.failure for span in calls if _is_infrastructures(span.failure)), None)
        return Trial(
            task_id=rollout.task_id,
            outcome=rollout.outcome if rollout.is_scorable and failure is None else None,
            dollars=sum(price_of(span, [resource]) or 0.0 for span in spans),
            seconds=sum(_seconds(span) for span in answered) if answered else None,
            text=_first_text(calls),
            choice=_routed_to(calls),
            failure=failure,
        )

    def note(self, place: int, trial: Trial) -> None:
        """Counts a rollout for or against the candidate's being there."""
        broken = self._broken[place]
        if trial.failure is None:
            broken.clear()
            return
        broken.append(trial.failure)
        if len(broken) == GONE_AFTER and place not in self.gone:
            reason = f"{GONE_AFTER} rollouts in a row broke down: {explain_failures(broken)}"
            self.gone[place] = reason
            self.out(place, reason)
        if not self.there:
            reasons = "; ".join(f"{self.labels[one]}: {why}" for one, why in self.gone.items())
            raise AlgorithmError(
                f"every candidate is gone after {self.rollouts} rollouts: {reasons}. See that their endpoints answer, "
                f"then go on with --resume {self.run.id}"
            )

    def out(self, place: int, reason: str, *, after: str = "") -> None:
        """Says why a candidate is dropped."""
        logger.info("%s is out%s: %s", self.labels[place], after, reason)
        self.run.result(f"{self.labels[place]} out{after}", reason)

    async def finish(self, place: int, *, step: int, tie: str | None = None) -> None:
        """Publishes the model that was chosen, evaluates it, and says so."""
        await self.run.publish(self.choices[place])
        if tie is not None:
            self.run.result("tie", tie)
        await self.run.evaluate(step=step)
        self.run.result("model", self.labels[place])

    def show_front(self, points_on: Mapping[str, Sequence[Point]]) -> None:
        """Writes the fronts of quality against cost as a table, by the tasks that they are of, the last of them as a
        picture; and says where they are."""
        known = {tasks: [one for one in points if _is_known(one)] for tasks, points in points_on.items()}
        known = {tasks: points for tasks, points in known.items() if points}
        if not known:
            return
        tasks, points = list(known.items())[-1]
        self.run.result("front", f"{', '.join(map(_shown, _thinned(on_front(points))))} ({tasks})")
        self.run.result("front table", str(write_table(known, self.run.directory)))
        picture = draw(points, self.run.directory, f"Quality against cost ({tasks})")
        self.run.result("front picture", NO_PICTURE if picture is None else str(picture))


def labels_of(candidates: Sequence[Candidate]) -> list[str]:
    """A name for each, its own: the model's, and its endpoint where another has the same."""
    count = Counter(candidate.model for candidate in candidates)
    return [
        one.model if count[one.model] == 1 else f"{one.model} at {one.base_url or 'its own endpoint'}"
        for one in candidates
    ]


def metrics_of(labels: Sequence[str], **of_each: Sequence[float]) -> dict[str, float]:
    """``reward/small`` and so on, those that are known."""
    return {
        f"{name}/{label}": value
        for name, values in of_each.items()
        for label, value in zip(labels, values, strict=True)
        if not math.isnan(value)
    }


def _choice(candidate: Candidate, agents: tuple[str, ...], place: int) -> ModelChoice:
    """One version of one resource for each: a rollout's record names the one it ran with."""
    fields: Mapping[str, object] = {name: getattr(candidate, name) for name in candidate.__struct_fields__}
    return ModelChoice(name=RESOURCE, version=place, agents=agents, **fields)  # type: ignore[arg-type]


def _first_text(calls: Sequence[Span]) -> str:
    for call in sorted(calls, key=lambda span: span.index):
        if call.generation is not None:
            return first_user_text(call.generation.messages)
    return ""


def _routed_to(calls: Sequence[Span]) -> str | None:
    """The first choice that a router made."""
    names = (call.attributes.get(semconv.MODEL_CHOICE) for call in sorted(calls, key=lambda span: span.index))
    return next((str(name) for name in names if name is not None), None)


def _seconds(call: Span) -> float:
    return max((call.ended_at or call.started_at) - call.started_at, 0.0)


def _is_infrastructures(failure: Failure | None) -> bool:
    return failure is not None and failure.fault == "infrastructure"


def _is_known(point: Point) -> bool:
    return not math.isnan(point.dollars) and not math.isnan(point.outcome)


def _shown(point: Point) -> str:
    return f"{point.name} {point.outcome:.3f} at ${point.dollars:.3g}"


def _thinned(front: list[Point], most: int = 8) -> list[Point]:
    """At most so many, evenly chosen, the first and the last among them."""
    if len(front) <= most:
        return front
    return [front[round(place * (len(front) - 1) / (most - 1))] for place in range(most)]
