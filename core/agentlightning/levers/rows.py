"""What each run of a comparison came to, against the baseline: a row each, and what a reader should know of it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from agentlightning.algorithm import Evaluation
from agentlightning.config import PromoteConfig
from agentlightning.levers.accounts import Account, Prices, account_of
from agentlightning.levers.recommending import Row
from agentlightning.levers.runs import Runs
from agentlightning.levers.sections import BASELINE, COMBINED, Lever
from agentlightning.promotion.gate import judge
from agentlightning.records import Policy
from agentlightning.report import compare, on_shared_tasks
from agentlightning.store.base import RunRecord, Store

DIFFERENT_BEGINNING = 0.01
"""A run whose own first evaluation differs from the baseline with a p below this began from something else."""


async def row_of(store: Store, runs: Runs, lever: Lever, prices: Prices) -> Row:
    """The row of a lever whose run has ended, well or not."""
    work, run = runs.work[lever.name], await runs.record(lever.name)
    row = Row(name=lever.name, algorithm=str(lever.config.algorithm["name"]), run_id=work.run_id)
    if run is None or not work.done:
        row.reason = f"failed: {work.failure}"
    if run is None:
        return row
    row.account = await account_of(store, run, prices=prices, seconds=work.seconds)
    if not work.done:
        return row
    baseline = await runs.evaluations(BASELINE)
    after = last_evaluation(baseline, await runs.evaluations(lever.name))
    if after is None:
        row.reason = _why_nothing(run)
        return row
    row.comparison = compare(*on_shared_tasks(_of_variant(baseline, after.variant), after))
    if row.comparison is None:
        row.reason = "no held-out task could be scored both before and after"
    return row


async def account_of_baseline(store: Store, runs: Runs, prices: Prices) -> Account:
    """What measuring the agent as it is took."""
    run = await runs.record(BASELINE)
    if run is None:
        return Account()
    return await account_of(store, run, prices=prices, seconds=runs.work[BASELINE].seconds)


async def with_cheaper(store: Store, runs: Runs, row: Row, rules: PromoteConfig, *, alpha: float) -> Row:
    """The row, with how much it is shown to be cheaper to use than the baseline and not worse (`agl promote`'s test, at
    the level ``alpha``)."""
    run, baseline = await runs.record(row.name), await runs.record(BASELINE)
    if row.comparison is None or run is None or baseline is None:
        return row
    verdict = await judge(store, run, None, replace(rules, alpha=alpha), baseline=baseline)
    if not verdict.opens or verdict.costs is None:
        return row
    costs = verdict.costs
    what = f"not worse by more than {rules.margin:g}, and cheaper to use"
    return replace(row, cheaper=f"{what}: {costs.after:.3g} after {costs.before:.3g} {costs.unit} a task")


def last_evaluation(baseline: Sequence[Evaluation], found: Sequence[Evaluation]) -> Evaluation | None:
    """The last evaluation of what a run made, run in the way of the baseline; None where nothing was learned."""
    ways = {one.variant for one in baseline}
    alike = [one for one in found if one.variant in ways] or [one for one in found if "" in (*ways, one.variant)]
    last = max(alike, key=lambda one: one.step, default=None)
    return None if last is None or last.step == 0 else last


async def way_of(store: Store, evaluation: Evaluation) -> str:
    """How the models of an evaluation were sampled, in words."""
    temperatures = set()
    for rollout in evaluation.rollouts[:1]:
        ran_with = [await store.resource(rollout.run_id, digest) for digest in rollout.resources.values()]
        temperatures = {one.sampling.get("temperature", 1.0) for one in ran_with if isinstance(one, Policy)}
    if not temperatures:
        return "sampled as the agent asks"
    return f"sampled at temperature {', '.join(f'{temperature:g}' for temperature in sorted(temperatures))}"


async def notes_of(store: Store, runs: Runs, row: Row) -> list[str]:
    """What a reader should know of a row that was compared."""
    baseline, found = await runs.evaluations(BASELINE), await runs.evaluations(row.name)
    after = last_evaluation(baseline, found)
    if after is None:
        return []
    before = _of_variant(baseline, after.variant)
    notes = [_other_beginning(row.name, before, found, after.variant)]
    one, other = await way_of(store, after), await way_of(store, before)
    if one != other:
        notes.append(f"{row.name} was evaluated {one}, the baseline {other}")
    if row.comparison is not None and row.comparison.left_out:
        notes.append(f"{row.name}: {row.comparison.left_out} held-out tasks could not be scored, and are left out")
    if row.account is not None and row.account.learning.unpriced:
        notes.append(
            f"{row.name}: nobody said what {row.account.learning.unpriced} of its calls cost (compare.prices), so it "
            "cost more dollars than it says"
        )
    return [note for note in notes if note]


def _other_beginning(name: str, baseline: Evaluation, found: Sequence[Evaluation], variant: str) -> str:
    """Says where a run's own first evaluation is not that of the agent as it is."""
    own = next((one for one in found if one.step == 0 and one.variant == variant), None)
    if own is None or COMBINED in name:
        return ""
    difference = compare(*on_shared_tasks(baseline, own))
    if difference is None or difference.p >= DIFFERENT_BEGINNING:
        return ""
    return (
        f"{name} began from something else than the baseline: its own first evaluation gave {difference.after:.3f}, "
        f"not {difference.before:.3f}"
    )


def _of_variant(evaluations: Sequence[Evaluation], variant: str) -> Evaluation:
    return next((one for one in evaluations if one.variant == variant), evaluations[0])


def _why_nothing(run: RunRecord) -> str:
    """What the run itself says, where it was not evaluated after a step."""
    said = [run.results["stopped"]] if "stopped" in run.results else [f"{k}: {v}" for k, v in run.results.items()]
    if not said:
        return "it was not evaluated on the held-out tasks after it had learned"
    return f"nothing was learned ({'; '.join(said)})"
