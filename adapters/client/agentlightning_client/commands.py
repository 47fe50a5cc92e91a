"""``agl work``: a Lightning Client."""

from __future__ import annotations

import asyncio
import os

import click

from agentlightning.cli.commands.common import FiniteRange
from agentlightning.cli.commands.signals import ending_by_signal


@click.command()
@click.argument("url", metavar="STORE")
@click.option("--agent", metavar="MODULE:ATTRIBUTE", help="The agent to run, as a config's `agent` names it.")
@click.option("--command", metavar="PROGRAM", help="A program to run as the agent, with its arguments, in one string.")
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
def work(
    url: str,
    agent: str | None,
    command: str | None,
    run: str | None,
    concurrency: int,
    timeout: float | None,
    forever: bool,
) -> None:
    """Run the agent on the rollouts of a STORE, for runs with `runner: {name: clients}`.

    The agent is one of --agent and --command. A command gets a task's input on its standard input, and in
    OPENAI_BASE_URL and OPENAI_API_KEY where to send its model calls; it writes its answer to its standard output.

    Ends with the runs that it has worked for. Ctrl-C and SIGTERM queue what runs again, for other workers.
    """
    from agentlightning.agents import load_agent
    from agentlightning.cli.commands.find import find_run
    from agentlightning.plugins import plugins
    from agentlightning.store import open_store
    from agentlightning.threads import run_on_process_loop, use_daemon_threads
    from agentlightning_client.command_agent import Command, command_here
    from agentlightning_client.errors import ClientError
    from agentlightning_client.runner import is_for_workers
    from agentlightning_client.worker import Worker, agent_here

    if (agent is None) == (command is None):
        raise click.UsageError("give the agent as one of --agent module:attribute and --command 'program argument …'")
    here = None if agent is None else agent_here(*load_agent(agent, plugins()))

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
                here or command_here(Command.parse(command or "", url, os.environ.get("AGL_SERVER_KEY")), store),
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
