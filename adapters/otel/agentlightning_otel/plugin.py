"""Registers the command ``agl otel`` and the format ``otlp`` of ``agl import``; sends rollouts as they finish where the
environment asks for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentlightning.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from agentlightning.records import Rollout, Span, Task
    from agentlightning.store.base import RunRecord
    from agentlightning_otel.sender import LiveSender

ENDPOINT_VARIABLES = (
    "AGENTLIGHTNING_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
"""The first that is set names the endpoint; empty in the first one means none."""


@hookimpl
def register_commands(register: Register) -> None:
    register("otel", "agentlightning_otel.commands:otel")


@hookimpl
def register_importers(register: Register) -> None:
    register("otlp", "agentlightning_otel.exports:Otlp")


@hookimpl
def rollout_finished(rollout: Rollout, task: Task, spans: Sequence[Span]) -> None:
    sender = _sender()
    if sender is not None:
        sender.send(rollout, spans, task)


@hookimpl
def run_finished(run: RunRecord) -> None:
    sender = _sender()
    if sender is not None:
        sender.flush()


def _sender() -> LiveSender | None:
    endpoint = next((os.environ[name] for name in ENDPOINT_VARIABLES if name in os.environ), "")
    if not endpoint:
        return None
    from agentlightning_otel.sender import live_sender

    return live_sender(endpoint)
