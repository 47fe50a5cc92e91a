"""What recording costs: CPU per model call of an agent that is recorded, over the same agent unrecorded.

    python tests/bench/recording.py [--calls 1000]

The client talks to a transport in the process that answers at once, so that what is measured is the client,
the model layer and the encoding of the span for the store. The variants take turns, call by call; a figure is the
median over the calls, of this process's CPU time on all its threads, and what is added the median of the differences.
The garbage collector rests meanwhile. The prompt has 200 tokens, the answer 40.
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
from agentlightning_openai import direct
from agentlightning_openai.adapter import OpenAIAdapter

LIMIT_MICROSECONDS = 100
WARM_UP, CALLS_WITHOUT_COLLECTION = 20, 50

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
        body["logprobs_mode"] = "tempered"
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

    transport = library.MockTransport(respond)
    direct.transport = lambda *_: transport
    http = openai.DefaultHttpxClient(transport=transport)
    return openai.OpenAI(base_url="http://stub/v1", api_key="none", http_client=http)


def _keep(spans: Sequence[Span]) -> None:
    """What a store does with a span before it is written."""
    encode(spans[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    arguments = parser.parse_args()
    client, adapter = _client(), OpenAIAdapter()
    policy = Policy(name="policy", model="tiny", base_url="http://engine/v1", sampling={"temperature": 1.0})

    def call(context: AbstractContextManager[Any], **options: Any) -> float:
        """CPU microseconds of one call."""
        with context, span("solver", agent="solver"):
            start = time.process_time()
            client.chat.completions.create(model="gpt", messages=MESSAGES, tools=TOOLS, **options)
            return (time.process_time() - start) * 1e6

    def rollout(*resources: Policy) -> AbstractContextManager[Any]:
        return recording(Recorder("rollout", 1, _keep, resources, seed=1))

    variants: dict[str, Callable[[], float]] = {
        "no rollout": lambda: call(nullcontext()),
        "recorded": lambda: call(rollout()),
        "redirected to a policy": lambda: call(rollout(policy)),
        "no rollout, asks for tokens": lambda: call(nullcontext(), **EXACT),
        "recorded, asks for tokens": lambda: call(rollout(), **EXACT),
    }
    over = dict.fromkeys(("recorded", "redirected to a policy"), "no rollout")
    over["recorded, asks for tokens"] = "no rollout, asks for tokens"
    adapter.install()
    taken = _interleaved(variants, arguments.calls)
    print(f"openai {openai.__version__}, {arguments.calls} calls of each")
    print(f"{'':32}{'µs CPU a call':>14}{'added':>9}")
    for name, costs in taken.items():
        more = f"{_added(costs, taken[over[name]]):+9.1f}" if name in over else ""
        print(f"{name:32}{statistics.median(costs):14.1f}{more}")
    cost = _added(taken["recorded"], taken["no rollout"])
    share = cost / statistics.median(taken["no rollout"])
    met = cost < LIMIT_MICROSECONDS
    verdict = f"{'within' if met else 'OVER'} the limit of {LIMIT_MICROSECONDS} µs"
    print(f"recording adds {cost:.0f} µs a call ({share:.1%}): {verdict}")
    return 0 if met else 1


def _interleaved(variants: dict[str, Callable[[], float]], calls: int) -> dict[str, list[float]]:
    """The cost of every call, by variant; a call of each in turn, so that all meet the same machine."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(calls + WARM_UP):
        if number % CALLS_WITHOUT_COLLECTION == 0:
            gc.collect()
            gc.disable()
        for name, variant in variants.items():
            cost = variant()
            if number >= WARM_UP:
                taken[name].append(cost)
    gc.enable()
    return taken


def _added(costs: list[float], base: list[float]) -> float:
    return statistics.median(cost - alone for cost, alone in zip(costs, base, strict=True))


if __name__ == "__main__":
    sys.exit(main())
