"""``agl promote``: what a run made, into production."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import change_store, console, read_store, store_hint, store_option
from agentlightning.defaults import LIVE_RUN

if TYPE_CHECKING:
    from agentlightning.promotion.gate import Verdict
    from agentlightning.store.base import RunRecord, Store
    from agentlightning.store.promotions import Promotion

EXIT_NOT_BETTER = 3
MOST = 0.9

target_option = click.option(
    "--target", "name", default=LIVE_RUN, show_default=True, help="The deployed agent: its name in agl.attach(run=…)."
)


@click.command()
@click.argument("run", metavar="RUN")
@target_option
@click.option(
    "--share",
    type=click.FloatRange(0, MOST, min_open=True),
    help="Give it to this share of the agent's runs first: a canary, that is rolled back where it is worse.",
)
@click.option(
    "--endpoint", metavar="URL", help="Where the weights that the run trained are served: http://HOST:PORT/v1."
)
@click.option("--baseline", metavar="RUN", help="A run whose last evaluation is of what is in production now.")
@click.option("--force", metavar="REASON", help="Promote it though it is not shown to be better; the reason is kept.")
@store_option
@click.pass_context
def promote(
    ctx: click.Context,
    run: str,
    name: str,
    share: float | None,
    endpoint: str | None,
    baseline: str | None,
    force: str | None,
    url: str,
) -> None:
    """Put what a RUN made into production, where its last evaluation shows that it is better.

    It is compared, by a paired test on the same held-out tasks, with what is in production, or where nothing is with
    the run's own first evaluation. The thresholds are in the section `promote` of its config. Exits with 3 where it is
    not shown to be better.
    """
    from agentlightning.online.attach import run_id
    from agentlightning.promotion.production import tell

    if force is not None and not force.strip():
        raise click.BadParameter("a promotion that is forced needs a reason", ctx, param_hint="--force")
    target = run_id(name)
    found, verdict, promotion = read_store(url, lambda store: _judged(store, run, target, endpoint, baseline))
    console().print(_as_text(verdict), soft_wrap=True)
    if not verdict.opens and force is None:
        click.echo(f"not promoted: {verdict.reason}")
        ctx.exit(EXIT_NOT_BETTER)
    promotion = _decided(promotion, found, verdict, share, force)
    begun = change_store(url, lambda store: _begun(store, promotion))
    tell(begun)
    click.echo(str(begun))
    click.echo(f"back with: agl rollback {name}{store_hint(url)}; all of it: agl promoted {name}{store_hint(url)}")


async def _judged(
    store: Store, id: str, target: str, endpoint: str | None, baseline: str | None
) -> tuple[RunRecord, Verdict, Promotion]:
    from agentlightning.cli.commands.find import find_run
    from agentlightning.promotion.gate import judge, rules_of
    from agentlightning.promotion.production import in_production, promotion_of

    run = await find_run(store, id)
    against = await find_run(store, baseline) if baseline is not None else None
    promotion = await promotion_of(store, run, target, endpoint=endpoint)
    now = in_production(await store.promotions(target))
    return run, await judge(store, run, now, rules_of(run), baseline=against), promotion


def _decided(
    promotion: Promotion, run: RunRecord, verdict: Verdict, share: float | None, force: str | None
) -> Promotion:
    from msgspec.structs import replace

    from agentlightning.promotion.gate import rules_of

    rules = rules_of(run)
    return replace(
        promotion,
        status="promoted" if share is None else "canary",
        share=1.0 if share is None else share,
        alpha=rules.alpha,
        enough=rules.enough,
        bounds=rules.bounds,
        forced=not verdict.opens,
        reason=verdict.reason if verdict.opens else f"forced: {force} ({verdict.reason})",
        evidence={"gate": verdict.evidence()},
    )


async def _begun(store: Store, promotion: Promotion) -> Promotion:
    from agentlightning.promotion.production import begin

    return await begin(store, promotion)


def _as_text(verdict: Verdict) -> object:
    from agentlightning.cli.tables import comparisons_table

    if verdict.comparison is None:
        return ""
    title = f"The same held-out tasks, against {verdict.against}"
    return comparisons_table([verdict.comparison], title=title)
