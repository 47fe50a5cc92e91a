"""The parts of GEPA that touch the agent: evaluation by rollouts of the run, what is reflected on, who is accepted, and
when it ends. All of them are called in the thread in which the package runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gepa.core.adapter import EvaluationBatch, GEPAAdapter
from gepa.core.callbacks import (
    EvaluationEndEvent,
    EvaluationSkippedEvent,
    IterationEndEvent,
    IterationStartEvent,
    ValsetEvaluatedEvent,
)
from gepa.core.data_loader import DataLoader
from gepa.core.state import GEPAState
from gepa.proposer.base import CandidateProposal
from gepa.strategies.eval_policy import FullEvaluationPolicy
from gepa.strategies.instruction_proposal import InstructionProposalSignature

from agentlightning.records import Task
from agentlightning_openai.chat_model import UnusableReplyError
from agentlightning_prompt.bridge import Bridge
from agentlightning_prompt.feedback import feedback
from agentlightning_prompt.reflection import fenced
from agentlightning_prompt.search import Ground, counted
from agentlightning_prompt.trials import Trial

logger = logging.getLogger(__name__)

UNSCORED = -math.inf
"""What stands for a score that there is none of, as the package takes numbers only. Nothing is decided by it."""
MAX_SILENT = 5
"""After so many steps in a row without a usable reply the search ends."""
Batch = EvaluationBatch[Trial, str]
State = GEPAState[str, int]


class Adapter(GEPAAdapter[Task, Trial, str]):
    """What the package evaluates candidates and proposes texts with."""

    def __init__(self, ground: Ground, bridge: Bridge, *, show_expected: bool) -> None:
        self._ground = ground
        self._bridge = bridge
        self._show_expected = show_expected
        self.step = 0
        """The step that goes on, from 1; 0 before the first."""

    def evaluate(self, batch: list[Task], candidate: dict[str, str], capture_traces: bool = False) -> Batch:
        """The candidate on each task, by a rollout where there was none yet."""
        trials = self._ground.trials
        paid = len(trials.unpaid(candidate, batch))
        found = self._bridge.call(lambda: trials.run(candidate, batch, step=self.step))
        return EvaluationBatch(
            outputs=[trial.rollout.id for trial in found],
            scores=[UNSCORED if trial.score is None else trial.score for trial in found],
            trajectories=found if capture_traces else None,
            num_metric_calls=paid,
        )

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Batch, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What the rollouts have to say about each of the prompts."""
        return self._bridge.call(lambda: self._feedback(candidate, eval_batch.trajectories or [], components_to_update))

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """New texts by the package's own prompt; none of a prompt for which the model gave nothing that can be used."""
        found = {}
        for name in components_to_update:
            text = self._bridge.call(lambda name=name: self._proposed(name, candidate[name], reflective_dataset[name]))  # type: ignore[misc]
            if text is not None:
                found[name] = text
        return found

    async def _feedback(
        self, candidate: Mapping[str, str], trials: Sequence[Trial], names: Sequence[str]
    ) -> dict[str, list[dict[str, Any]]]:
        ground = self._ground
        ground.trials.compared.update(trial.rollout.id for trial in trials)
        recorded = [(trial, await ground.trials.spans(trial)) for trial in trials]
        return {
            name: [
                feedback(trial, spans, ground.role(name), candidate[name], show_expected=self._show_expected)
                for trial, spans in recorded
            ]
            for name in names
        }

    async def _proposed(self, name: str, text: str, examples: Sequence[Mapping[str, Any]]) -> str | None:
        role = self._ground.role(name)
        prompt = InstructionProposalSignature.prompt_renderer(
            {"current_instruction_doc": text, "dataset_with_feedback": examples, "prompt_template": None}
        )
        asked = f"{prompt}{_about_fields(role.fields)}"

        def read(reply: str) -> str:
            proposed = fenced(reply)
            refusal = role.refusal(proposed)
            if refusal is not None:
                raise UnusableReplyError(f"the new instruction cannot take the old one's place: {refusal}")
            return proposed

        self._ground.run.phase("reflecting")
        messages = [{"role": "user", "content": asked}]
        return await self._ground.reflector.ask(messages, read, key=f"step {self.step}, {name}")


def _about_fields(fields: Sequence[str]) -> str:
    if not fields:
        return ""
    names = ", ".join(f"{{{name}}}" for name in fields)
    return f"\n\nKeep the fields {names} as they are: a program fills them in. Write any other brace twice."


class PairedImprovement:
    """Accepts a candidate whose sum over the minibatch is greater than its parent's, over the tasks that both could be
    scored on (`gepa.strategies.acceptance.AcceptanceCriterion`)."""

    def __init__(self, ground: Ground) -> None:
        self._trials = ground.trials

    def should_accept(self, proposal: CandidateProposal[Any], state: State) -> bool:
        for evaluation in (proposal.eval_before, proposal.eval_after):
            if evaluation is not None:
                self._trials.compared.update(trial.rollout.id for trial in evaluation.trajectories or ())
        before, after = proposal.subsample_scores_before or [], proposal.subsample_scores_after or []
        pairs = [pair for pair in zip(before, after, strict=True) if UNSCORED not in pair]
        return sum(new for _, new in pairs) > sum(old for old, _ in pairs)


class AffordableValidation(FullEvaluationPolicy[int, Task]):
    """Validates on all of the validation tasks, or on those that the budget has left; compares candidates on the tasks
    that both could be scored on."""

    def __init__(self, ground: Ground, bridge: Bridge) -> None:
        self._ground = ground
        self._bridge = bridge

    def get_eval_batch(
        self, loader: DataLoader[int, Task], state: State, target_program_idx: int | None = None
    ) -> list[int]:
        left = self._bridge.call(self._ground.trials.left)
        return list(loader.all_ids())[:left]

    def get_best_program(self, state: State) -> int:
        return self.best_of(state.prog_candidate_val_subscores)

    def best_of(self, scores_of: Sequence[Mapping[int, float]]) -> int:
        """Which candidate is the best by its scores on the validation tasks; the first of those that are equal."""
        best = 0
        for number, scores in enumerate(scores_of):
            other = scores_of[best]
            shared = [id for id in scores if scores[id] != UNSCORED and other.get(id, UNSCORED) != UNSCORED]
            if sum(scores[id] for id in shared) > sum(other[id] for id in shared):
                best = number
        return best

    def get_valset_score(self, program_idx: int, state: State) -> float:
        known = [score for score in state.prog_candidate_val_subscores[program_idx].values() if score != UNSCORED]
        return sum(known) / len(known) if known else UNSCORED


class Watch:
    """Follows the search (`gepa.core.callbacks.GEPACallback`), says when it ends (`gepa.utils.StopperProtocol`), and
    sees to it that nothing is decided by what could not be scored."""

    def __init__(
        self,
        ground: Ground,
        bridge: Bridge,
        adapter: Adapter,
        policy: AffordableValidation,
        *,
        minibatch: int,
        steps: int,
    ) -> None:
        self._ground = ground
        self._bridge = bridge
        self._adapter = adapter
        self._policy = policy
        self._steps = steps
        self._epoch = math.ceil(len(ground.run.tasks) / minibatch)
        self._least = 2 * minibatch + math.ceil(len(ground.validation) / 2)
        self._parent: Sequence[str] = ()
        self._idle = self._silent = 0
        self.why_ended: str | None = None
        """Why the search ended before its last step."""

    def __call__(self, gepa_state: State) -> bool:
        """Whether no step follows."""
        if gepa_state.i + 1 >= self._steps:
            return True
        self.why_ended = self._reason()
        return self.why_ended is not None

    def on_iteration_start(self, event: IterationStartEvent) -> None:
        self._adapter.step = event["iteration"]
        self._rollouts, self._given_up = self._ground.trials.rollouts, self._ground.reflector.given_up
        forget_unscored(event["state"])

    def on_evaluation_end(self, event: EvaluationEndEvent) -> None:
        if event["candidate_idx"] is not None:
            self._parent = event["outputs"]

    def on_evaluation_skipped(self, event: EvaluationSkippedEvent) -> None:
        """All of the parent's minibatch is perfect: that is what its rollouts have decided."""
        self._ground.trials.compared.update(self._parent)

    def on_valset_evaluated(self, event: ValsetEvaluatedEvent) -> None:
        found = self._ground.trials.found(event["candidate"])
        self._ground.trials.compared.update(trial.rollout.id for trial in found)

    def on_iteration_end(self, event: IterationEndEvent) -> None:
        ground, state = self._ground, event["state"]
        forget_unscored(state)
        self._idle = 0 if ground.trials.rollouts > self._rollouts else self._idle + 1
        self._silent = self._silent + 1 if ground.reflector.given_up > self._given_up else 0
        best = self._policy.get_best_program(state)
        metrics = {
            "candidates": len(state.program_candidates),
            "accepted": float(event["proposal_accepted"]),
            "validation_reward": self._policy.get_valset_score(best, state),
            **counted(ground),
        }
        self._bridge.call(lambda: self._log(metrics, event["iteration"]))

    def _reason(self) -> str | None:
        if self._silent >= MAX_SILENT:
            return f"the reflection model gave nothing that can be used in {self._silent} steps in a row"
        if self._idle >= self._epoch:
            return f"in {self._idle} steps, which is all training tasks once, there was nothing new to run"
        left = self._bridge.call(self._ground.trials.left)
        if left is not None and left < self._least:
            return f"{left} rollouts are left of the budget, and a step may take {self._least}"
        return None

    async def _log(self, metrics: Mapping[str, float], step: int) -> None:
        self._ground.run.log(metrics, step=step)
        self._ground.run.progress(step=step, steps=self._steps)


def forget_unscored(state: State) -> None:
    """Takes out of the package's records what could not be scored: a mean or a front over it would be none."""
    for scores in state.prog_candidate_val_subscores:
        for id in [id for id, score in scores.items() if score == UNSCORED]:
            del scores[id]
    fronts = state.program_at_pareto_front_valset
    for id in [id for id in fronts if state.pareto_front_valset.get(id, UNSCORED) == UNSCORED]:
        state.pareto_front_valset.pop(id, None)
        del fronts[id]
