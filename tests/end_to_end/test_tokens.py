"""What is trained is what was sampled."""

import numpy as np
import pytest

from agentlightning import Algorithm, Trainer
from agentlightning.cli.live_progress import make_progress
from agentlightning.config import NoConfig
from agentlightning_policy.batches import make_batches
from agentlightning_policy.config import ModelConfig
from agentlightning_policy.engine import Engine
from agentlightning_policy.logprobs import token_logprobs
from agentlightning_policy.model import PolicyModel


class Collecting(Algorithm):
    """Collects once with the engine and keeps the policy, the groups and the spans."""

    def __init__(self, path: str) -> None:
        super().__init__(NoConfig())
        self.path = path
        self.groups = []
        self.spans = []

    async def run(self, run) -> None:
        self.policy = PolicyModel.load(ModelConfig(path=self.path))
        async with Engine(self.policy) as engine:
            await run.publish(engine.resource("policy", temperature=0.8))
            async for group in run.collect(run.tasks, group_size=4, step=1):
                self.groups.append(group)
        for group in self.groups:
            for rollout in group.all_rollouts:
                self.spans.append(await run.spans(rollout))


@pytest.fixture
def collected(project, tiny_model, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.delitem(__import__("sys").modules, "two_turns", raising=False)
    algorithm = Collecting(str(tiny_model))
    Trainer(
        "two_turns:graph",
        "tasks.jsonl",
        "two_turns:score",
        algorithm,
        held_out="tasks.jsonl",
        store="sqlite:///store.db",
        progress=make_progress(quiet=True),
    ).fit()
    return algorithm


def test_the_trainers_log_probabilities_are_the_engines(collected):
    rows = [row for group in collected.groups for row in group.rows]
    assert len(rows) >= 48, "two calls of 24 rollouts"
    worst = 0.0
    for batch in make_batches(rows, 4096):
        ours = token_logprobs(collected.policy.module, batch).logprobs.detach().numpy()
        worst = max(worst, float(np.abs((ours - batch.sampler_logprobs.numpy()) * batch.mask.numpy()).max()))
    assert 0 < worst < 1e-4


def test_the_tokens_in_the_store_are_those_that_are_trained(collected):
    stored = {span.id: span.generation for spans in collected.spans for span in spans if span.generation is not None}
    rows = [row for group in collected.groups for row in group.rows]
    assert [rollout.failure for group in collected.groups for rollout in group.excluded] == []
    assert sum(len(row.transitions) for row in rows) == len(stored) == 48
    for row in rows:
        for transition in row.transitions:
            call = stored[transition.span_id]
            assert call.provenance == "exact"
            np.testing.assert_array_equal(call.prompt_ids, row.token_ids[: transition.start])
            np.testing.assert_array_equal(call.response_ids, row.token_ids[transition.start : transition.end])
            np.testing.assert_array_equal(call.logprobs, row.logprobs[transition.start : transition.end])


def test_a_second_call_goes_on_from_the_very_tokens_of_the_first(collected):
    for spans in collected.spans:
        first, second = (span.generation for span in spans if span.generation is not None)
        before = np.concatenate([first.prompt_ids, first.response_ids])
        np.testing.assert_array_equal(second.prompt_ids[: len(before)], before)
