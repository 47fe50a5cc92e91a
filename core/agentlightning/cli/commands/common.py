"""What the commands share: the store that is looked at, and the terminal that is written to."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentlightning.defaults import STORE
from agentlightning.formatting import parse_duration, parse_since

if TYPE_CHECKING:
    from rich.console import Console

    from agentlightning.store.base import Store

T = TypeVar("T")

PIPE_WIDTH = 120

overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a value of the config."
)
store_option = click.option("--store", "url", default=STORE, show_default=True, help="URL of the store.")


class FiniteRange(click.FloatRange):
    """A number in a range, and never NaN, which is in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("expected a number", param, ctx)
        return number


def seconds_of(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The callback of an option that is a duration: ``90s``, ``30m``, ``12h``, ``7d``, in seconds."""
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def check_since(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The callback of an option that says since when (`agentlightning.formatting.parse_since`)."""
    try:
        if value is not None:
            parse_since(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return value


def read_store(url: str, query: Callable[[Store], Awaitable[T]]) -> T:
    """The answer to a question about a store, which is opened for reading only where it is a file."""
    from agentlightning.store import open_store

    async def ask() -> T:
        only_read = url.startswith("sqlite:///") and "?" not in url
        store = open_store(f"{url}?mode=ro" if only_read else url)
        try:
            return await query(store)
        finally:
            await store.close()

    return asyncio.run(ask())


def change_store(url: str, change: Callable[[Store], Awaitable[T]]) -> T:
    """What came of changing a store, which is made where there is none."""
    from agentlightning.store import open_store

    async def ask() -> T:
        store = open_store(url)
        try:
            return await change(store)
        finally:
            await store.close()

    return asyncio.run(ask())


def store_hint(url: str) -> str:
    """The option that other commands need to find this store; empty for the default one."""
    return "" if url == STORE else f" --store {url}"


def console() -> Console:
    """Standard output. In a pipe: no colours, and `PIPE_WIDTH` columns, or ``COLUMNS`` where that is set."""
    from rich.console import Console

    output = Console(highlight=False)
    if not output.is_terminal and "COLUMNS" not in os.environ:
        output = Console(highlight=False, width=PIPE_WIDTH)
    return output
