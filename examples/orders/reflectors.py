"""GEPA on the agent's system prompt, by who reflects: SmolLM2 itself, and a scripted model that proposes the prompts of
a list, one after the other, whatever it is shown.

``python reflectors.py`` runs both, and prints a table. ``python reflectors.py scripted`` runs one of them.
"""

import argparse
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from agentlightning import Trainer
from agentlightning.cli.commands.common import read_store
from agentlightning.config import load_config
from agentlightning.formatting import format_p

REFLECTORS = ("policy", "scripted")
PROMPTS = (
    "You take down orders. Think step by step.",
    "Say how many are ordered. Reply with the number, and nothing else.",
    "You read messages of customers. Reply with what is ordered in three words at most, such as: 24 towels.",
    "Which number of the message is ordered? Leave out the others. Reply with that number only.",
    "Write the order as a number and a word. Example: I bought 5 cups, and would like 7 plates. Order: 7 plates.",
)
HEADINGS = (
    "who reflects",
    "steps",
    "replies",
    "unusable",
    "validated",
    "rollouts",
    "held out, before → after",
    "p",
    "minutes",
)


class Scripted(BaseHTTPRequestHandler):
    """The next prompt of the list, from the first on again after the last."""

    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        text = PROMPTS[Scripted.asked % len(PROMPTS)]
        Scripted.asked += 1
        body = json.dumps(
            {
                "id": f"scripted-{Scripted.asked}",
                "object": "chat.completion",
                "created": 0,
                "model": "scripted",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": f"```\n{text}\n```"},
                        "finish_reason": "stop",
                    }
                ],
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted_model() -> Iterator[str]:
    """Where the scripted model answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def train(reflector: str, overrides: list[str]) -> str:
    """One run, as a row of the table."""
    if reflector == "policy":
        return row(reflector, overrides)
    with scripted_model() as url:
        return row(reflector, [*overrides, f"algorithm.reflection={{model: scripted, base_url: '{url}'}}"])


def row(reflector: str, overrides: list[str]) -> str:
    config = load_config("gepa.yaml", [f"name=gepa-{reflector}", *overrides])
    started = time.monotonic()
    result = Trainer.from_config(config).fit()
    metrics = read_store(config.store, lambda store: store.metrics(result.run_id))
    last = {metric.name: metric.value for metric in metrics}
    before = next(evaluation.mean for evaluation in result.evaluations if evaluation.step == 0)
    (compared,) = result.comparisons or (None,)
    cells = [
        reflector,
        str(sum(metric.name == "candidate_rollouts" for metric in metrics)),
        f"{last['reflection_calls']:.0f}",
        f"{last['reflection_unusable']:.0f}",
        f"{last['candidates'] - 1:.0f}",
        f"{last['candidate_rollouts']:.0f}",
        f"{before:.3f}, unchanged" if compared is None else f"{compared.before:.3f} → {compared.after:.3f}",
        "" if compared is None else format_p(compared.p),
        f"{(time.monotonic() - started) / 60:.0f}",
    ]
    print(f"{reflector}: {result.results}", flush=True)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reflectors", nargs="*", default=REFLECTORS, help=f"of {', '.join(REFLECTORS)}")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="A.B=VALUE of the config")
    arguments = parser.parse_args()
    rows = [train(reflector, arguments.overrides) for reflector in arguments.reflectors]
    print(f"\n| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}", *rows, sep="\n")


if __name__ == "__main__":
    main()
