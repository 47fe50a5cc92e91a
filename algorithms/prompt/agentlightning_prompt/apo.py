"""Textual gradients and beam search (Pryzant et al. 2023, "Automatic Prompt Optimization with 'Gradient Descent' and
Beam Search")."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import msgspec
import numpy as np

from agentlightning.config import NonNegative, NonNegativeInt, PositiveInt
from agentlightning_openai.chat_model import UnusableReplyError
from agentlightning_prompt.apo_prompts import edit, gradient, paraphrase
from agentlightning_prompt.beam_selection import Arms, successive_rejects, ucb
from agentlightning_prompt.feedback import feedback
from agentlightning_prompt.roles import Role
from agentlightning_prompt.search import Ground, PromptSearch, SearchConfig, Winner, better, counted
from agentlightning_prompt.trials import Candidate, Trial, digest_of

MAX_SILENT = 2
"""After so many steps in a row without a new candidate the search ends."""


class APOConfig(SearchConfig, kw_only=True):
    """Each step expands every prompt of the ``beam``: of the errors in a minibatch, ``errors`` are shown to the model
    that reflects; it names ``gradients`` reasons, writes a prompt against each, and ``paraphrases`` of each of these.
    Of what comes of a prompt, ``successors`` are drawn. The best of all are the next beam, by ``selection`` on training
    tasks, with at most ``selection_rollouts`` a step; ``exploration`` is the constant of ``ucb``.
    """

    minibatch: PositiveInt = 16
    steps: PositiveInt = 6
    beam: PositiveInt = 4
    errors: PositiveInt = 4
    gradients: PositiveInt = 4
    paraphrases: NonNegativeInt = 2
    successors: PositiveInt = 8
    selection: Literal["ucb", "successive_rejects"] = "ucb"
    selection_rollouts: PositiveInt = 96
    exploration: NonNegative = 1.0


class APO(PromptSearch):
    """Algorithm 1 of the paper: expand the beam by textual gradients, select the next one by a bandit; the best of the
    last one by the validation tasks. With several prompts in an agent, each step changes the next of them.

    A step begins where the budget has room for its minibatches, for each candidate once, and for the validation of a
    beam.
    """

    Config: ClassVar[type[msgspec.Struct]] = APOConfig
    config: APOConfig

    async def search(self, ground: Ground) -> Winner:
        run, config = ground.run, self.config
        beam: list[Candidate] = [ground.trials.own()]
        silent = step = 0
        for step in range(1, config.steps + 1):
            reason = await self._reason_to_end(ground, beam, silent)
            if reason is not None:
                step -= 1
                run.stopped(step=step, reason=reason)
                break
            role = ground.roles[(step - 1) % len(ground.roles)]
            expanded = [await self._expand(ground, candidate, role, step) for candidate in beam]
            candidates = [*beam, *itertools.chain.from_iterable(expanded)]
            silent = silent + 1 if len(candidates) == len(beam) else 0
            beam = await self._select(ground, candidates, step)
            run.log({"candidates": len(candidates), **counted(ground)}, step=step)
            run.progress(step=step, steps=config.steps)
        return Winner(candidate=await self._best(ground, beam, step), steps=step)

    async def _expand(self, ground: Ground, parent: Candidate, role: Role, step: int) -> list[Candidate]:
        """Algorithm 2: candidates that differ from their parent in one prompt."""
        config, run, trials = self.config, ground.run, ground.trials
        rng = np.random.default_rng([run.seed, step, int(digest_of(parent), 16)])
        tried = await trials.run(parent, run.batches(config.minibatch)(step), step=step)
        trials.compared.update(trial.rollout.id for trial in tried)
        errors = [trial for trial in tried if self._is_error(trial)]
        if not errors:
            return []
        shown = [errors[int(place)] for place in sorted(rng.permutation(len(errors))[: config.errors])]
        text = parent[role.name]
        examples = [
            feedback(trial, await trials.spans(trial), role, text, show_expected=config.show_expected)
            for trial in shown
        ]
        run.phase("reflecting")
        new = await self._reflect(ground, role, text, examples, key=f"step {step}, {digest_of(parent)}")
        new = [found for found in dict.fromkeys(new) if found != text]
        drawn = sorted(rng.permutation(len(new))[: config.successors])
        return [{**parent, role.name: new[int(place)]} for place in drawn]

    async def _reflect(
        self, ground: Ground, role: Role, text: str, examples: Sequence[Mapping[str, object]], *, key: str
    ) -> list[str]:
        """Gradients, an edit against each, and paraphrases of each of those."""
        config, ask = self.config, ground.reflector.ask
        reasons = await ask(gradient(text, examples, config.gradients), tagged, key=f"{key}, gradient") or []
        usable = _usable(role)
        edits = await asyncio.gather(
            *(
                ask(edit(text, examples, reason, role.fields), usable, key=f"{key}, edit {number}")
                for number, reason in enumerate(reasons[: config.gradients])
            )
        )
        found = [new for new in edits if new is not None]
        varied = await asyncio.gather(
            *(
                ask(paraphrase(new, role.fields), usable, key=f"{key}, paraphrase {number} {copy}")
                for number, new in enumerate(found)
                for copy in range(config.paraphrases)
            )
        )
        return [*found, *(new for new in varied if new is not None)]

    async def _select(self, ground: Ground, candidates: Sequence[Candidate], step: int) -> list[Candidate]:
        config, run = self.config, ground.run
        if len(candidates) <= config.beam:
            return list(candidates)
        left = await ground.trials.left()
        rollouts = config.selection_rollouts
        if left is not None:
            rollouts = min(rollouts, left - config.beam * len(ground.validation))
        order = np.random.default_rng([run.seed, step]).permutation(len(run.tasks))
        arms = Arms(ground.trials, candidates, [run.tasks[int(place)] for place in order], step=step)
        if config.selection == "ucb":
            return await ucb(arms, beam=config.beam, rollouts=rollouts, exploration=config.exploration)
        return await successive_rejects(arms, beam=config.beam, rollouts=rollouts)

    async def _best(self, ground: Ground, beam: Sequence[Candidate], step: int) -> Candidate:
        """The best of the beam, and of the agent's own prompts, on the validation tasks."""
        trials = ground.trials
        best: Candidate = trials.own()
        for candidate in beam:
            await trials.run(candidate, await trials.affordable(candidate, ground.validation), step=step)
            found = trials.found(candidate)
            trials.compared.update(trial.rollout.id for trial in (*found, *trials.found(trials.own())))
            if better(trials, candidate, best, ground.validation):
                best = candidate
        ground.run.log({"validation_reward": _mean(trials.found(best)), **counted(ground)}, step=step)
        return best

    async def _reason_to_end(self, ground: Ground, beam: Sequence[Candidate], silent: int) -> str | None:
        if silent >= MAX_SILENT:
            return f"no new prompt came of the last {silent} steps: no errors, or nothing usable from the model"
        left, config = await ground.trials.left(), self.config
        least = len(beam) * (config.minibatch + config.successors + 1) + config.beam * len(ground.validation)
        if left is not None and left < least:
            return f"{left} rollouts are left of the budget, and a step with its validation may take {least}"
        return None

    def _is_error(self, trial: Trial) -> bool:
        if trial.score is None:
            return trial.rollout.failure is not None and trial.rollout.failure.fault == "agent"
        return trial.score < self.config.perfect_score


def tagged(reply: str) -> list[str]:
    """What stands between <START> and <END>. Raises `UnusableReplyError` where nothing does."""
    found = [part.strip() for part in re.findall(r"<START>(.*?)<END>", reply, re.DOTALL)]
    if not any(found):
        raise UnusableReplyError("nothing in it is wrapped with <START> and <END>")
    return [part for part in found if part]


def _usable(role: Role) -> Callable[[str], str]:
    def read(reply: str) -> str:
        text = tagged(reply)[0]
        refusal = role.refusal(text)
        if refusal is not None:
            raise UnusableReplyError(f"the prompt cannot take the old one's place: {refusal}")
        return text

    return read


def _mean(trials: Sequence[Trial]) -> float:
    scores = [trial.score for trial in trials if trial.score is not None]
    return sum(scores) / len(scores)
