"""``agl work``: a Lightning Client."""

from __future__ import annotations

import asyncio

import click

from agentlightning.cli.commands.common import FiniteRange
from agentlightning.cli.commands.signals import ending_by_signal


@click.command()
@click.argument("url", metavar="STORE")
@click.option(
    "--agent", required=True, metavar="MODULE:ATTRIBUTE", help="The agent to run, as a config's `agent` names it."
)
@click.option("--run", metavar="RUN", help="Work for this run alone.  [default: every run that is for workers]")
@click.option(
    "--concurrency", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Rollouts that run at once."
)
@click.option(
    "--timeout",
    type=FiniteRange(0, 1e7, min_open=True),
    metavar="SECONDS",
    help="How long an agent may run, where that is less than the run's runner.timeout.",
)
@click.option("--forever", is_flag=True, help="Wait for further runs when those that were worked for have ended.")
def work(url: str, agent: str, run: str | None, concurrency: int, timeout: float | None, forever: bool) -> None:
    """Run the agent on the rollouts of a STORE, for runs with `runner: {name: clients}`.

    Ends with the runs that it has worked for. Ctrl-C and SIGTERM queue what runs again, for other workers.
    """
    from agentlightning.agents import load_agent
    from agentlightning.cli.commands.find import find_run
    from agentlightning.plugins import plugins
    from agentlightning.store import open_store
    from agentlightning.threads import run_on_process_loop, use_daemon_threads
    from agentlightning_client.errors import ClientError
    from agentlightning_client.runner import is_for_workers
    from agentlightning_client.worker import Worker

    loaded, adapter = load_agent(agent, plugins())

    async def do() -> int:
        use_daemon_threads(asyncio.get_running_loop())
        store = open_store(url)
        try:
            run_id = None
            if run is not None:
                record = await find_run(store, run)
                if not is_for_workers(record):
                    raise ClientError(
                        f"run {record.id} runs its agent itself; workers are for one with runner: {{name: clients}}"
                    )
                if record.status != "running" and not forever:
                    raise ClientError(f"run {record.id} is not running ({record.status}); --forever waits for it")
                run_id = record.id
            worker = Worker(
                store,
                loaded,
                adapter,
                run_id=run_id,
                concurrency=concurrency,
                timeout=timeout,
                forever=forever,
                say=click.echo,
            )
            click.echo(f"waiting for rollouts in {url}, {concurrency} at once; stop with Ctrl-C")
            await worker.work()
            return worker.finished
        finally:
            await store.close()

    with ending_by_signal():
        finished = run_on_process_loop(do())
    click.echo(f"{finished} rollout{'' if finished == 1 else 's'} done")
