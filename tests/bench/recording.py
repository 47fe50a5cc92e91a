"""What recording costs: CPU per model call of an agent that is recorded, over the same agent unrecorded.

    python tests/bench/recording.py [--batches 60] [--calls 25]

The client talks to a transport in the process that answers at once, so that what is measured is the client,
the model layer and the encoding of the span for the store. Batches of the variants are interleaved, with garbage
collected before each; a figure is the median over the batches, of this process's CPU time on all its threads.
The prompt has 200 tokens, the answer 40.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import openai

from agentlightning.recording import Recorder, recording, span
from agentlightning.records import Policy, Span, encode
from agentlightning_openai.adapter import OpenAIAdapter

LIMIT_MICROSECONDS = 100

PROMPT_TOKENS, ANSWER_TOKENS = 200, 40
MESSAGES = [
    {"role": "system", "content": "You solve word problems with a calculator. " * 8},
    {"role": "user", "content": "A box holds six eggs and three spoons. " * 8},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "calculator", "arguments": '{"expression": "6 * 5"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "30"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "calculator",
            "description": "Works out an arithmetic expression.",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string", "description": "What to work out."}},
                "required": ["expression"],
            },
        },
    }
]
EXACT = {"logprobs": True, "extra_body": {"return_token_ids": True}}


def _answer(exact: bool) -> bytes:
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": "word " * ANSWER_TOKENS, "refusal": None},
        "finish_reason": "stop",
        "logprobs": None,
    }
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "tiny",
        "choices": [choice],
        "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": ANSWER_TOKENS, "total_tokens": 240},
    }
    if exact:
        body |= {"prompt_token_ids": list(range(1000, 1000 + PROMPT_TOKENS)), "policy_version": 3}
        token = {"token": "word", "logprob": -0.123456789, "bytes": None, "top_logprobs": []}
        choice["logprobs"] = {"content": [token] * ANSWER_TOKENS}
        choice["token_ids"] = list(range(2000, 2000 + ANSWER_TOKENS))
    return json.dumps(body).encode()


def _client() -> openai.OpenAI:
    """A client whose requests are answered in the process: exactly where they ask for token ids."""
    library: Any = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]
    plain, exact = _answer(False), _answer(True)

    def respond(request: Any) -> Any:
        body = exact if b"return_token_ids" in request.content else plain
        return library.Response(200, headers={"content-type": "application/json"}, content=body)

    http = openai.DefaultHttpxClient(transport=library.MockTransport(respond))
    return openai.OpenAI(base_url="http://stub/v1", api_key="none", http_client=http)


def _keep(spans: Sequence[Span]) -> None:
    """What a store does with a span before it is written."""
    encode(spans[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--calls", type=int, default=25)
    arguments = parser.parse_args()
    client, adapter = _client(), OpenAIAdapter()
    policy = Policy(name="policy", model="tiny", base_url="http://engine/v1", sampling={"temperature": 1.0})

    def batch(context: Callable[[], AbstractContextManager[Any]], patched: bool, **options: Any) -> float:
        """CPU microseconds per call."""
        (adapter.install if patched else adapter.uninstall)()
        with context(), span("solver", agent="solver"):
            gc.collect()
            start = time.process_time()
            for _ in range(arguments.calls):
                client.chat.completions.create(model="gpt", messages=MESSAGES, tools=TOOLS, **options)
            return (time.process_time() - start) / arguments.calls * 1e6

    def rollout(*resources: Policy) -> AbstractContextManager[Any]:
        return recording(Recorder("rollout", 1, _keep, resources, seed=1))

    variants: dict[str, Callable[[], float]] = {
        "unrecorded": lambda: batch(nullcontext, False),
        "installed, no rollout": lambda: batch(nullcontext, True),
        "recorded": lambda: batch(rollout, True),
        "unrecorded, asks for tokens": lambda: batch(nullcontext, False, **EXACT),
        "recorded, asks for tokens": lambda: batch(rollout, True, **EXACT),
        "redirected to a policy": lambda: batch(lambda: rollout(policy), True),
    }
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(arguments.batches + 1):
        for name, variant in variants.items():
            cost = variant()
            if number:
                taken[name].append(cost)

    def added(name: str, over: str) -> float:
        return statistics.median(a - b for a, b in zip(taken[name], taken[over], strict=True))

    print(f"openai {openai.__version__}, {arguments.batches} batches of {arguments.calls} calls")
    print(f"{'':32}{'µs CPU a call':>14}{'added':>9}")
    for name, over in (
        ("unrecorded", ""),
        ("installed, no rollout", "unrecorded"),
        ("recorded", "unrecorded"),
        ("unrecorded, asks for tokens", ""),
        ("recorded, asks for tokens", "unrecorded, asks for tokens"),
        ("redirected to a policy", "unrecorded"),
    ):
        more = f"{added(name, over):+9.1f}" if over else ""
        print(f"{name:32}{statistics.median(taken[name]):14.1f}{more}")
    cost = added("recorded", "unrecorded")
    met = cost < LIMIT_MICROSECONDS
    share = statistics.median(a / b for a, b in zip(taken["recorded"], taken["unrecorded"], strict=True)) - 1
    verdict = f"{'within' if met else 'OVER'} the limit of {LIMIT_MICROSECONDS} µs"
    print(f"recording adds {cost:.0f} µs a call ({share:.1%}): {verdict}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
