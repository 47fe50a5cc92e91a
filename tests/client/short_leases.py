"""A worker as ``agl work`` makes it, whose leases end soon: ``python short_leases.py STORE AGENT SECONDS``."""

from __future__ import annotations

import asyncio
import sys

import click

from agentlightning.agents import load_agent
from agentlightning.plugins import plugins
from agentlightning.store import open_store
from agentlightning_client.worker import Worker, agent_here


async def main(url: str, agent: str, seconds: str) -> None:
    performing = agent_here(*load_agent(agent, plugins()))
    store = open_store(url)
    click.echo("waiting for rollouts")
    try:
        await Worker(store, performing, lease_seconds=float(seconds)).work()
    finally:
        await store.close()


asyncio.run(main(*sys.argv[1:]))
