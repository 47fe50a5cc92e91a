"""Files of the OpenTelemetry collector, as rollouts: what becomes what is tested with the receiver."""

from __future__ import annotations

import json
from typing import Any

import pytest
from importing_files import Imports, outline, unread

pytest.importorskip("agentlightning_otel")

TRACE = "0af7651916cd43dd8448eb211c80319c"


def attributes(**values: Any) -> list[dict[str, Any]]:
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue"}
    return [{"key": key.replace("__", "."), "value": {kinds[type(value)]: value}} for key, value in values.items()]


def span(id: int, parent: int | None, name: str, *, trace: str = TRACE, **values: Any) -> dict[str, Any]:
    made = {
        "traceId": trace,
        "spanId": f"{id:016x}",
        "name": name,
        "startTimeUnixNano": str(1772400000000000000 + id),
        "endTimeUnixNano": str(1772400001000000000 - id),
        "attributes": attributes(**values),
    }
    return made if parent is None else {**made, "parentSpanId": f"{parent:016x}"}


def request(*spans: dict[str, Any]) -> dict[str, Any]:
    resource = {"attributes": attributes(service__name="shop")}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def message(role: str, text: str) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


ROOT = span(1, None, "invoke_agent greeter", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="greeter")
ROOT["events"] = [
    {
        "name": "gen_ai.evaluation.result",
        "timeUnixNano": "1772400000500000000",
        "attributes": attributes(gen_ai__evaluation__name="polite", gen_ai__evaluation__score__value=1.0),
    }
]
CALL = span(
    2, 1, "chat small",
    gen_ai__operation__name="chat",
    gen_ai__request__model="small",
    gen_ai__input__messages=message("user", "Say hello."),
    gen_ai__output__messages=message("assistant", "Hello!"),
)  # fmt: skip


async def test_a_trace_spread_over_lines_is_a_rollout_with_its_rewards(imports: Imports) -> None:
    imported = await imports.read(imports.write("a.jsonl", request(CALL), request(ROOT)))
    assert (imported.rollouts, imported.unread) == (1, [])
    (rollout,) = await imports.rollouts()
    spans = await imports.store.spans(rollout.id)
    assert outline(spans) == ["agent greeter [greeter]", "  llm chat small [greeter]", "  reward polite [greeter]"]
    assert (rollout.output, rollout.outcome, (await imports.task(rollout)).input) == ("Hello!", 1.0, "Say hello.")


async def test_what_has_to_do_with_no_model_or_makes_no_sense_is_counted(imports: Imports) -> None:
    web = span(3, None, "GET /", trace=TRACE[::-1])
    bad = {**CALL, "spanId": "00"}
    imported = await imports.read(imports.write("a.jsonl", request(ROOT, CALL), request(web, bad)))
    found = unread(imported)
    assert found.pop("span: none in its trace has to do with a model") == 1
    assert [reason for reason in found if "expected 8 bytes" in reason]
    assert imported.rollouts == 1


async def test_a_second_import_adds_nothing(imports: Imports) -> None:
    name = imports.write("a.jsonl", request(ROOT, CALL))
    await imports.read(name)
    again = await imports.read(name)
    assert (again.rollouts, again.known, again.added_rewards, again.added_spans) == (0, 1, 0, 0)
