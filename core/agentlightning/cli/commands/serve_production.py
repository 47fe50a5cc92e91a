"""What is in production for a deployed agent, served as it changes: ``agl serve --target NAME``."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import click

from agentlightning.cli.commands.common import read_store
from agentlightning.errors import ConfigError, PromotionError, StoreError

if TYPE_CHECKING:
    from agentlightning.serving import Servable
    from agentlightning.store.base import Store

logger = logging.getLogger(__name__)

WAIT_SECONDS = 60.0
AGAIN_SECONDS = 5.0
"""How long until a store that is away is asked again."""


class InProduction(NamedTuple):
    """What is served, why, and the revision that says so."""

    revision: int
    why: str
    what: Servable


def serve_production(url: str, name: str, model_name: str | None, port: int) -> None:
    """Serves until it is interrupted. Raises `PromotionError` where there is nothing to serve, or no longer.

    Prompts change between two requests. For another model the one before is let go of first, so that requests are
    refused while it is loaded; clients ask again.
    """
    from agentlightning.cli.commands.serve import introduction
    from agentlightning.online.attach import run_id
    from agentlightning.serving import ServedModel

    target = run_id(name)
    now = read_store(url, lambda store: _in_production(store, target))
    while True:
        with ServedModel(now.what, name=model_name, port=port) as served:
            port = urlsplit(served.base_url).port or port
            click.echo(f"{now.why}\n{introduction(now.what, served, model_name)}")
            loaded = now.what
            while _model(now.what) == _model(loaded):
                now = _changed(url, target, now)
                served.use_prompts(now.what.prompts)
                click.echo(now.why)


def _model(what: Servable) -> object:
    return what.server, what.model, what.engine, what.sampling


def _changed(url: str, target: str, known: InProduction) -> InProduction:
    """What is in production next. A store that is away changes nothing."""
    while True:
        try:
            found = read_store(url, lambda store: _next(store, target, known.revision))
        except StoreError as error:
            logger.warning("what is in production cannot be asked for, and stays as it was: %s", error)
            time.sleep(AGAIN_SECONDS)
        else:
            if found is not None:
                return found


async def _next(store: Store, target: str, revision: int) -> InProduction | None:
    from agentlightning.store.promotions import revision_of

    promotions = await store.wait_for_promotions(target, newer_than=revision, seconds=WAIT_SECONDS)
    return await _in_production(store, target) if revision_of(promotions) > revision else None


async def _in_production(store: Store, target: str) -> InProduction:
    """Raises `PromotionError` where nothing is that could be served."""
    from agentlightning.promotion.production import in_production
    from agentlightning.serving import Servable
    from agentlightning.store.promotions import revision_of

    promotions = await store.promotions(target)
    now = in_production(promotions)
    last = max(promotions, key=lambda one: (one.status == "rolled_back", one.revision), default=None)
    shown = now if now is not None else last
    if shown is None:
        raise PromotionError(f"nothing is in production for {target}: agl promote RUN --target {target} puts it there")
    run = await store.run(shown.run_id)
    if run is None:
        raise PromotionError(f"run {shown.run_id}, which is in production for {target}, is not in this store")
    try:
        what = Servable.of_run(run, now.resources) if now is not None else Servable.of_beginning(run)
    except ConfigError as error:
        raise PromotionError(
            f"what is in production for {target} cannot be served: {error}. In the agent's own process "
            "agl.attach(…, apply=True) gives its calls prompts and models, and takes them back"
        ) from error
    why = str(now) if now is not None else f"{target}: the model that run {run.id} began with, as it was rolled back"
    return InProduction(revision_of(promotions), why, what)
