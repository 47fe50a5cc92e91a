"""The shell's face: ``agl``."""

from __future__ import annotations

import errno
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from agentlightning.errors import AgentLightningError

COMMANDS = {
    "train": "train",
    "check": "check",
    "eval": "evaluate",
    "runs": "runs",
    "show": "show",
    "failures": "failures",
    "compare": "compare",
    "compare-runs": "compare_runs",
    "prompts": "prompts",
    "serve": "serve",
    "promote": "promote",
    "promoted": "promoted",
    "rollback": "rollback",
    "export": "export",
    "import": "import_rollouts",
    "plugins": "plugins",
    "prune": "prune",
    "init": "init",
}
"""The module in ``agentlightning.cli.commands`` that each is in, as the function of the module's name."""

EXIT_FAILED = 1
EXIT_USAGE = 2
RUN_LOG = "agentlightning.run_log"
"""In the context's ``meta`` from where a command's run has begun: the path of its log, or None without one."""


class Commands(click.Group):
    """Core's commands and those of plugins, imported when they are used; errors without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from agentlightning.plugins import plugins

        return [*COMMANDS, *sorted(plugins().working("commands"))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = COMMANDS[cmd_name]
            command: click.Command = getattr(import_module(f"agentlightning.cli.commands.{module}"), module)
            return command
        from agentlightning.plugins import plugins

        return plugins().working("commands").get(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort) as stop:
            from agentlightning.cli.commands.signals import exit_code, reason

            stop = stop if isinstance(stop, KeyboardInterrupt) else KeyboardInterrupt()
            _say(reason(stop))
            ctx.exit(exit_code(stop))
        except Exception as error:
            if ctx.params["debug"] or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            _say(_in_words(error, ctx.meta.get(RUN_LOG)))
            ctx.exit(EXIT_USAGE if isinstance(error, AgentLightningError) and RUN_LOG not in ctx.meta else EXIT_FAILED)


def _in_words(error: Exception, log: object) -> str:
    """What went wrong, in a line; and where more is, for what nobody has foreseen."""
    from agentlightning.errors import advice
    from agentlightning.loading import explain
    from agentlightning.redaction import redact

    if isinstance(error, AgentLightningError):
        return redact(f"error: {error}")
    known = advice(error)
    more = f"the traceback is in {log}" if log is not None else "`agl --debug …` shows the traceback"
    return f"error: {redact(known or explain(error))}\n{more}"


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        click.echo(text, err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, envvar="AGL_DEBUG", help="Show tracebacks, and the output of every library.")
@click.version_option(package_name="agentlightning", prog_name="agl")
def main(debug: bool) -> None:
    """Make any LLM agent learn from its own runs.

    \b
    agl init my_agent:graph           write a config for an agent
    agl check agentlightning.yaml     run it once, and say what a run would learn from
    agl train agentlightning.yaml     train it
    agl eval agentlightning.yaml      measure it, and learn nothing
    agl compare agentlightning.yaml   learn in several ways on one budget, and say which is worth it
    agl serve RUN                     answer its calls with the trained model
    agl promote RUN                   give it to the deployed agent, if it is shown to be better
    agl rollback                      take that back
    agl import FILE --name RUN        take over what other tools have recorded
    agl runs                          what was trained
    agl show RUN                      one run, or one rollout
    agl failures RUN                  what went wrong, and how often

    \b
    Exit codes: 0 done; 1 the run failed, or check found something to mend;
    2 nothing was run: the command line, the config, or what it names is wrong;
    3 not promoted: not shown to be better;
    130 Ctrl-C; 143 SIGTERM; 129 SIGHUP.
    """
