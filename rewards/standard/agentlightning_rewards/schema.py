"""Reward: the agent's answer is valid JSON of a schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from jsonschema import SchemaError, ValidationError
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

from agentlightning.answers import final_answer
from agentlightning.errors import ConfigError
from agentlightning.records import Rollout, Task
from agentlightning_rewards.patterns import PatternError, compiled, matches

LONGEST_INTEGER = 100_000
"""Digits. What is longer is taken for no JSON."""
_FENCE = "```"


class JsonSchemaConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``schema`` is a JSON Schema; its ``$schema`` names the draft, the latest by default. Nothing is fetched: a
    ``$ref`` to another document is an error."""

    schema: dict[str, Any]


class JsonSchema:
    """1 when the answer is valid: a structured one as it is, text as JSON, alone or in a code block; else 0.

    NaN and Infinity are no JSON; of a key that is there twice the last counts. What nests too deep to be read is not
    valid. A ``pattern`` of the schema that backtracks is a `RewardError` after a time.
    """

    Config = JsonSchemaConfig

    def __init__(self, config: JsonSchemaConfig) -> None:
        kind = validator_for(config.schema)
        try:
            kind.check_schema(config.schema)
            _check_references_and_patterns(config.schema)
            bounded = {name: function for name, function in _BOUNDED.items() if name in kind.VALIDATORS}
            self._validator = extend(kind, bounded)(config.schema, registry=Registry())
            values: tuple[Any, ...] = (None, True, 0, "", [], {})
            for value in values:
                self._validator.is_valid(value)
        except SchemaError as error:
            raise ConfigError(f"json_schema: schema{error.json_path[1:]} is no JSON Schema: {error.message}") from error
        except Unresolvable as error:
            raise ConfigError(
                f"json_schema: $ref {error.ref!r} is not in the schema, and nothing is fetched"
            ) from error
        except PatternError as error:
            raise ConfigError(f"json_schema: {error}") from error
        except RecursionError as error:
            raise ConfigError("json_schema: the schema refers to itself without an end") from error

    def __call__(self, rollout: Rollout, task: Task) -> float:
        answer = final_answer(rollout.output)
        try:
            value = _read(answer) if isinstance(answer, str) else answer
            return float(self._validator.is_valid(value))
        except (json.JSONDecodeError, RecursionError, _NoJsonError):
            return 0.0


class _NoJsonError(ValueError):
    pass


def _read(text: str) -> Any:
    return json.loads(_unfenced(text).strip("\ufeff \t\r\n"), parse_constant=_no_constant, parse_int=_integer)


def _unfenced(text: str) -> str:
    """What is in the first code block; the text itself where there is none."""
    _, fence, rest = text.partition(_FENCE)
    language, newline, block = rest.partition("\n")
    content, closed, _ = block.partition(_FENCE)
    is_block = fence and newline and closed and language.strip().lower() in ("", "json", "json5", "jsonc")
    return content if is_block else text


def _no_constant(name: str) -> Any:
    raise _NoJsonError(name)


class _LongInteger(int):
    """One that Python would not write out, as messages of jsonschema do with what is wrong."""

    def __repr__(self) -> str:
        return "<a long integer>"


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise _NoJsonError("an integer too long")
    return int(digits) if len(digits) < 4000 else _LongInteger(Decimal(digits))  # `int` reads 4,300 digits


def _check_references_and_patterns(schema: Mapping[str, Any]) -> None:
    """Raises `ConfigError` or `PatternError` where one is wrong, which else only an answer would show."""
    dialect = schema.get("$schema")
    specification = specification_with(dialect, default=DRAFT202012) if isinstance(dialect, str) else DRAFT202012
    root = specification.create_resource(schema)
    resolver = Registry().with_resource(root.id() or "", root).resolver(root.id() or "")
    left = [(root, resolver)]
    while left:
        resource, resolver = left.pop()
        contents = resource.contents
        if isinstance(contents, Mapping):
            if isinstance(contents.get("$ref"), str):
                _resolve(resolver, contents["$ref"])
            if isinstance(contents.get("pattern"), str):
                compiled(contents["pattern"])
            for pattern in contents.get("patternProperties") or ():
                compiled(pattern)
        left += [(below, resolver.in_subresource(below)) for below in resource.subresources()]


def _resolve(resolver: Any, reference: str) -> None:
    try:
        resolver.lookup(reference)
    except Unresolvable as error:
        raise ConfigError(f"json_schema: $ref {reference!r} is not in the schema, and nothing is fetched") from error


def _found(pattern: str, text: str) -> bool:
    return next(matches(pattern, text), None) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _found(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for pattern, below in patterns.items():
            for name, value in instance.items():
                if _found(pattern, name):
                    yield from validator.descend(value, below, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name not in known and not any(_found(pattern, name) for pattern in patterns):
            yield from validator.descend(value, allowed, path=name)


_BOUNDED = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
"""Keywords with regular expressions, which jsonschema searches with `re`."""
