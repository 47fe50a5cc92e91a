"""Reward: the agent's answer is valid JSON of a schema."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from jsonschema import SchemaError
from jsonschema.validators import validator_for
from referencing import Registry

from agentlightning.errors import ConfigError
from agentlightning.records import Rollout, Task
from agentlightning_rewards.text import final_answer

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


class JsonSchemaConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``schema`` is a JSON Schema; its ``$schema`` names the draft, the latest by default. Nothing is fetched: a
    ``$ref`` to another document is an error."""

    schema: dict[str, Any]


class JsonSchema:
    """1 when the answer is valid: a structured one as it is, text as JSON, alone or in a code block; else 0."""

    Config = JsonSchemaConfig

    def __init__(self, config: JsonSchemaConfig) -> None:
        kind = validator_for(config.schema)
        try:
            kind.check_schema(config.schema)
        except SchemaError as error:
            raise ConfigError(f"json_schema: schema{error.json_path[1:]} is no JSON Schema: {error.message}") from error
        self._validator = kind(config.schema, registry=Registry())

    def __call__(self, rollout: Rollout, task: Task) -> float:
        answer = final_answer(rollout.output)
        if isinstance(answer, str):
            fenced = _FENCED.search(answer)
            try:
                answer = json.loads(fenced[1] if fenced else answer)
            except json.JSONDecodeError:
                return 0.0
        return float(self._validator.is_valid(answer))
