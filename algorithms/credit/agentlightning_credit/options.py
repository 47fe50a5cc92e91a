"""Options of a credit that change nothing beside others."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agentlightning.config import refuse_without_effect


def refuse_unused(config: msgspec.Struct, unused: Mapping[str, str]) -> None:
    """Raises `ConfigError` for an option that is not at its default though it is among the unused, which say when they
    have an effect."""
    fields = msgspec.structs.fields(type(config))
    changed = [field.encode_name for field in fields if getattr(config, field.name) != field.default]
    refuse_without_effect(changed, unused, at="algorithm.credit")
