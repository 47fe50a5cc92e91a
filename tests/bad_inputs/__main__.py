"""Runs `agl` on bad inputs, and prints what a person gets. ``python tests/bad_inputs [WORD …]``: only those so named.

Each has to end within its limit, with its exit code and its words, and never in a bare traceback. Exits with 1 where
one does not.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cases import CASES, Case, Config, write  # noqa: E402
from conftest import make_tiny_model  # noqa: E402

LIMIT_SECONDS = 120
AT_ONCE = 2
AGENT = '''"""Asks its model. Imports nothing of who trains it."""
import openai

client = openai.OpenAI()


def solve(question):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="m", messages=messages, max_tokens=8).choices[0].message.content


def score(rollout, task):
    return float(len(str(rollout.output)) % 2)
'''


def project(folder: Path, model: Path) -> Config:
    """A project that trains as it is."""
    (folder / "small.py").write_text(AGENT)
    lines = [json.dumps({"id": f"t{number}", "input": f"question {number}"}) for number in range(6)]
    (folder / "tasks.jsonl").write_text("\n".join(lines))
    algorithm = {"name": "grpo", "model": {"path": str(model)}, "steps": 2, "batch_tasks": 2, "group_size": 4}
    return {
        "agent": "small:solve",
        "tasks": "tasks.jsonl",
        "reward": "small:score",
        "algorithm": algorithm,
        "runner": {"timeout": 5, "retries": 0},
        "store": "sqlite:///store.db",
    }


def run(case: Case, model: Path) -> tuple[Case, int | None, str, float]:
    """The case, its exit code (None: it did not end), what it printed, and for how many seconds it ran."""

    def limit() -> None:
        if case.file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.file_limit, case.file_limit))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, case, project(folder, model))
        started = time.monotonic()
        command = [str(Path(sys.executable).with_name("agl")), *case.arguments]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **case.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            preexec_fn=limit,
        )
        late = threading.Timer(LIMIT_SECONDS, process.kill)
        late.start()
        output = ""
        waits = case.signal is not None
        for line in process.stdout:
            output += line
            if waits and case.when in line:
                process.send_signal(case.signal)
                waits = False
        code = process.wait()
        ended = late.is_alive()
        late.cancel()
        return case, code if ended else None, output, time.monotonic() - started


def faults(case: Case, code: int | None, output: str) -> list[str]:
    """What is wrong with what a person got."""
    if code is None:
        return [f"did not end within {LIMIT_SECONDS} s"]
    found = []
    if code != case.code:
        found.append(f"exit code {code} for {case.code}")
    if not re.search(case.says, output):
        found.append(f"does not say {case.says!r}")
    if "Traceback (most recent call last)" in output:
        found.append("a traceback")
    return found


def message(output: str) -> str:
    """The first line that says what is wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = sorted(
        (line for line in lines if re.match(r"(error|Error|run \S+ has stopped)\b", line)),
        key=lambda line: line.startswith("run "),
    )
    return next(iter([*telling, *lines[-1:]]), "(nothing)")


def main(words: list[str]) -> int:
    chosen = [case for case in CASES if not words or any(word in f"{case.kind} {case.name}" for word in words)]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny_model(Path(folder) / "model")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            print(f"{'input':44} {'code':>4} {'s':>5}  first line of the message")
            for case, code, output, seconds in pool.map(lambda case: run(case, model), chosen):
                shown = "–" if code is None else code
                print(
                    f"{f'{case.kind}: {case.name}':44} {shown:>4} {seconds:5.1f}  {message(output)[:150]}", flush=True
                )
                wrong = faults(case, code, output)
                failed += bool(wrong)
                for fault in wrong:
                    print(f"  FAULT: {fault}\n" + "\n".join(f"  | {line}" for line in output.splitlines()[-25:]))
    print(f"\n{len(chosen) - failed} of {len(chosen)} as they should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
