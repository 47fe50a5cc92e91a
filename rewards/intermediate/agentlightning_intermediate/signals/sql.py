"""SQL that no database would read, or that found nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from agentlightning import semconv
from agentlightning.adapterkit.attributes import parse_arguments
from agentlightning.errors import ConfigError
from agentlightning.records import Span
from agentlightning_intermediate.content import is_nothing, shown
from agentlightning_intermediate.signals.answers import unfenced
from agentlightning_intermediate.signals.signal import Occurrence, SignalOptions, named
from agentlightning_intermediate.trace import Trace, answer_text, ended_at, tool_name

USUAL_ARGUMENTS = ("sql", "query", "statement")
LONGEST_STATEMENT = 20_000
"""Characters. What is longer is not parsed, and not held to be wrong."""
SQL_BLOCK = re.compile(r"```sql\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)


def sql_invalid(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """A tool was called with SQL that does not parse, or an answer that should be SQL does not."""
    for answer in trace.answers:
        for what, statement in _statements(trace, answer, options):
            error = syntax_error(statement, options.sql_dialect)
            if error is not None:
                yield Occurrence(answer, ended_at(answer), f"{what} is not valid SQL: {shown(error)}")


def sql_empty(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """A tool that was called with SQL succeeded and returned nothing."""
    for tool in trace.of_kind("tool"):
        known = tool.failure is None and semconv.TOOL_CALL_RESULT in tool.attributes
        if not known or not named(tool_name(tool), options.sql_tools):
            continue
        answer = trace.cause(tool)
        statement = _argument(parse_arguments(tool.attributes.get(semconv.TOOL_CALL_ARGUMENTS)), options)
        if answer is not None and statement is not None and is_nothing(tool.attributes[semconv.TOOL_CALL_RESULT]):
            yield Occurrence(answer, ended_at(tool), f"{tool_name(tool)} returned nothing: {shown(statement)}")


def syntax_error(statement: str, dialect: str | None) -> str | None:
    """What is wrong with a statement's syntax; None where nothing is, or where nobody can tell. ``dialect`` is one of
    sqlglot's."""
    import sqlglot
    from sqlglot import exp

    if len(statement) > LONGEST_STATEMENT:
        return None
    try:
        parsed = [one for one in sqlglot.parse(statement, dialect=dialect) if one is not None]
    except sqlglot.errors.SqlglotError as error:
        return str(error)
    except Exception:  # noqa: BLE001 - the parser is a stranger's, and the statement whatever a model wrote
        return None
    if not parsed:
        return "there is no statement"
    if any(isinstance(one, exp.Condition | exp.Alias | exp.Tuple) for one in parsed):
        return f"an expression, and no statement: {statement}"
    return None


def check_sqlglot(dialect: str | None) -> None:
    """Raises `ConfigError` where sqlglot is not installed, or does not know the dialect."""
    if find_spec("sqlglot") is None:
        raise ConfigError(
            "intermediate: signals.sql_invalid: needs sqlglot, which is not installed: pip install 'sqlglot>=26'"
        )
    if dialect is None:
        return
    from sqlglot.dialects.dialect import Dialect

    try:
        Dialect.get_or_raise(dialect)
    except ValueError as error:
        raise ConfigError(f"intermediate: sql_dialect: sqlglot does not know it: {error}") from error


def _statements(trace: Trace, answer: Span, options: SignalOptions) -> Iterator[tuple[str, str]]:
    calls = trace.calls_of(answer)
    for call in calls:
        statement = _argument(call.arguments, options) if named(call.name, options.sql_tools) else None
        if statement is not None:
            yield f"the argument of {call.name}", statement
    if not calls and named(answer.agent, options.sql_agents):
        text = answer_text(answer.generation)
        block = SQL_BLOCK.search(text)
        yield "the answer", block[1] if block else unfenced(text)


def _argument(arguments: Any, options: SignalOptions) -> str | None:
    """The SQL among a tool's arguments; None where there is none."""
    if isinstance(arguments, str):
        return arguments
    if not isinstance(arguments, Mapping):
        return None
    names = USUAL_ARGUMENTS if options.sql_argument is None else (options.sql_argument,)
    return next((arguments[name] for name in names if isinstance(arguments.get(name), str)), None)
