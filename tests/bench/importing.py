"""How long `agl import` takes for 10,000 rollouts of each format: ``python tests/bench/importing.py [--rollouts N]``.

The records are those of the examples of tests/importing, under other ids. Fails where a format takes more than a minute
of the processor for 10,000, or a rollout is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from importing_files import example

from agentlightning.store import open_store

ROLLOUTS = 10_000
LIMIT = 60.0


def langfuse(number: int) -> Iterator[str]:
    (trace, *_) = example("langfuse_traces.json")
    text = json.dumps(trace)
    return (text.replace("trace-1", f"trace-{index}") for index in range(number))


def langsmith(number: int) -> Iterator[str]:
    root = "00000000-0000-4000-8000-000000000001"
    text = "\n".join(json.dumps(run) for run in example("langsmith_runs.jsonl") if run["trace_id"] == root)
    return (text.replace("00000000-0000-4000", f"{index:08x}-0000-4000") for index in range(number))


def openai(number: int) -> Iterator[str]:
    (record, *_) = example("openai_finetuning.jsonl")
    text = json.dumps(record)
    return (text.replace("23 + 48?", f"23 + {index}?") for index in range(number))


def otlp(number: int) -> Iterator[str]:
    """A request for each trace: an agent, two calls of a model and a tool, with a score."""
    return (json.dumps(_request(index)) for index in range(number))


def _request(index: int) -> dict[str, Any]:
    asked = json.dumps([{"role": "user", "parts": [{"type": "text", "content": f"What is {index} + 1?"}]}])
    answered = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": str(index + 1)}]}])
    call = {"operation.name": "chat", "request.model": "m", "input.messages": asked, "output.messages": answered}
    tool = {"operation.name": "execute_tool", "tool.name": "calculator", "tool.call.arguments": f"{index} + 1"}
    spans = [
        _span(index, 1, None, {"operation.name": "invoke_agent", "agent.name": "solver", "evaluation.name": "right"}),
        _span(index, 2, 1, call),
        _span(index, 3, 1, tool),
        _span(index, 4, 1, call),
    ]
    spans[0]["attributes"].append({"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 1.0}})
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": spans}]}]}


def _span(trace: int, id: int, parent: int | None, about: dict[str, str]) -> dict[str, Any]:
    span = {
        "traceId": f"{trace + 1:032x}",
        "spanId": f"{id:016x}",
        "name": "span",
        "startTimeUnixNano": str(1772400000000000000 + id),
        "endTimeUnixNano": str(1772400001000000000 + id),
        "attributes": [{"key": f"gen_ai.{name}", "value": {"stringValue": value}} for name, value in about.items()],
    }
    return span if parent is None else {**span, "parentSpanId": f"{parent:016x}"}


FORMATS: dict[str, Callable[[int], Iterator[str]]] = {
    "langfuse": langfuse,
    "langsmith": langsmith,
    "openai": openai,
    "otlp": otlp,
}


def imported(file: Path, url: str) -> tuple[float, float]:
    """Seconds of the whole command, and of the processor in it."""
    command = [sys.executable, "-c", "from agentlightning.cli import main; main()", "import", str(file)]
    used, begun = _processor(), time.perf_counter()
    subprocess.run([*command, "--name", "bench", "--store", url, "--strict"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun, _processor() - used


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def count(url: str) -> int:
    store = open_store(f"{url}?mode=ro")
    rollouts = await store.rollouts("bench")
    await store.close()
    return len(rollouts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS)
    number = parser.parse_args().rollouts
    failed = False
    for name, records in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            file, url = Path(folder) / f"{name}.jsonl", f"sqlite:///{folder}/store.db"
            with file.open("w", encoding="utf-8") as opened:
                opened.writelines(f"{record}\n" for record in records(number))
            (took, used), (again, _) = imported(file, url), imported(file, url)
            there = asyncio.run(count(url))
            size = file.stat().st_size / 1e6
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
        failed |= there != number or used * ROLLOUTS / number > LIMIT
        print(
            f"{name:10} {there:,} rollouts, {size:.0f} MB: {took:.1f} s ({used:.1f} s of processor); "
            f"a second time {again:.1f} s; peak memory so far {memory:.0f} MB"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
