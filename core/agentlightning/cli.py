"""The shell's face: ``agl``."""

from __future__ import annotations

import errno
from importlib import import_module
from typing import Any

import click

from agentlightning.errors import AgentLightningError

COMMANDS = ("train", "runs", "show", "prompts", "export", "plugins", "init")
"""Each is the function of its name in ``agentlightning.commands.<name>``."""

EXIT_ERROR = 2
EXIT_UNEXPECTED = 1
EXIT_INTERRUPTED = 130


class Commands(click.Group):
    """Core's commands and those of plugins, imported when they are used; errors without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from agentlightning.plugins import plugins

        return [*COMMANDS, *sorted(plugins().commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            command: click.Command = getattr(import_module(f"agentlightning.commands.{cmd_name}"), cmd_name)
            return command
        from agentlightning.plugins import plugins

        return plugins().commands().get(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except AgentLightningError as error:
            if ctx.params["debug"]:
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(EXIT_ERROR)
        except Exception as error:
            if ctx.params["debug"] or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            from agentlightning.loading import explain

            click.echo(f"error: {explain(error)}\n`agl --debug …` shows the traceback", err=True)
            ctx.exit(EXIT_UNEXPECTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="agentlightning", prog_name="agl")
def main(debug: bool) -> None:
    """Make any LLM agent learn from its own runs.

    \b
    agl init my_agent:graph           look at an agent, write a config
    agl train agentlightning.yaml     train it
    agl runs                          what was trained
    agl show RUN                      one run, or one rollout
    """
