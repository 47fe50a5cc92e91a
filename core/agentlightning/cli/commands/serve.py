"""``agl serve``: a trained model behind the OpenAI API."""

from __future__ import annotations

import json
import shlex
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import read_store, store_option
from agentlightning.cli.commands.screen import own_screen
from agentlightning.cli.commands.serve_production import serve_production
from agentlightning.cli.commands.signals import ending_by_signal

if TYPE_CHECKING:
    from agentlightning.records import Prompt
    from agentlightning.serving import Servable, ServedModel
    from agentlightning.store.base import Store

PORT = 8000


@click.command()
@click.argument("model", metavar="[RUN|FOLDER]", required=False)
@click.option("--target", metavar="NAME", help="Serve what is in production for this deployed agent, as it changes.")
@click.option("--name", help="Answer only requests for a model of this name.  [default: whatever they name]")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes any free one.")
@store_option
@click.pass_context
def serve(ctx: click.Context, model: str | None, target: str | None, name: str | None, port: int, url: str) -> None:
    """Serve what a RUN trained or chose, or a model's FOLDER, behind the OpenAI API on this machine, until Ctrl-C.

    The prompts that the run published, or its config has, take the place of the agent's own. With --target it is the
    run that is in production (agl promote); another model is loaded when that changes.
    """
    from agentlightning.progress import Progress
    from agentlightning.serving import Servable, ServedModel

    if (model is None) == (target is None):
        raise click.UsageError("name a RUN, a model's FOLDER, or a --target")
    screen = own_screen(Progress(), ".", quiet=False, debug=ctx.find_root().params["debug"])
    if model is None:
        with screen, ending_by_signal():
            serve_production(url, str(target), name, port)
        return
    is_folder = Path(model).is_dir() or Path(model).name != model
    what = Servable.of_folder(Path(model)) if is_folder else read_store(url, lambda store: _of_run(store, model))
    with screen, ending_by_signal(), ServedModel(what, name=name, port=port) as served:
        click.echo(introduction(what, served, name))
        threading.Event().wait()


async def _of_run(store: Store, id: str) -> Servable:
    from agentlightning.cli.commands.find import find_run
    from agentlightning.serving import Servable

    run = await find_run(store, id)
    return Servable.of_run(run, await store.published(run))


def introduction(what: Servable, served: ServedModel, name: str | None) -> str:
    """What is served where, and how to ask it."""
    body = json.dumps({"model": name or "any", "messages": [{"role": "user", "content": "What is 2 + 3?"}]})
    lines = [
        f"{what.name} answers at {served.base_url}, to {'any model name' if name is None else repr(name)}",
        *(f"prompt for {', '.join(prompt.agents)}: {_short(prompt)}" for prompt in what.prompts),
        *(f"not applied: {text}" for text in what.passed_over),
        *(f"{field} {value:g} where a request says none, as in the run" for field, value in what.sampling.items()),
        "",
        *(f"export {variable}={value}" for variable, value in served.environment.items()),
        "",
        f"try: curl {served.base_url}/chat/completions -H 'Content-Type: application/json' -d {shlex.quote(body)}",
        "Ctrl-C ends it",
    ]
    return "\n".join(lines)


def _short(prompt: Prompt) -> str:
    from textwrap import shorten

    demonstrated = f"{len(prompt.demonstrations)} demonstrations" if prompt.demonstrations else ""
    text = "" if prompt.template is None else repr(shorten(prompt.template, 80, placeholder=" …"))
    return ", ".join(part for part in (text, demonstrated) if part)
