"""The same training as five processes of this machine: Lightning Server, trainer, vLLM and two Lightning Clients.

``python cluster.py --steps 4`` starts them, waits, stops them, trains as many steps in one process, and prints both.
It fails where they are further apart than noise: the held-out means, by a two-sided test of proportions at p < 0.01.
``--without-vllm`` has the trainer's own engine write the tokens, and ``--vllm-python`` names an environment of vLLM's.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import NormalDist, mean

from agentlightning.store import open_store

AGL = [str(Path(sys.executable).with_name("agl"))]
LOGS = Path("runs/cluster")
START_SECONDS = 60.0


@contextmanager
def running(name: str, *arguments: str):
    """A process of ``agl`` that logs to runs/cluster/NAME.log, and is stopped."""
    with (LOGS / f"{name}.log").open("ab") as log:
        process = subprocess.Popen([*AGL, *arguments], stdout=log, stderr=log)
    print(f"{name}: process {process.pid}, {log.name}", flush=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(port: int) -> None:
    """Until the server answers."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                sys.exit(f"the server did not come up in {START_SECONDS:.0f} s: see {LOGS}/server.log")
            time.sleep(0.2)
        else:
            return


def train_apart(settings: list[str], vllm: list[str]) -> str:
    """The run as five processes; the URL of its store."""
    store, port = f"sqlite:///{LOGS.absolute()}/store.db", free_port()
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        stack.enter_context(running("server", "server", "--store", store, "--port", str(port)))
        wait_for(port)
        for number in (1, 2):
            stack.enter_context(running(f"client-{number}", "work", url, "--agent", "agent:graph"))
        options = [f"store={url}", "runner.name=clients", *settings, *vllm]
        trainer = stack.enter_context(running("trainer", "train", "config.yaml", *sets(options)))
        if trainer.wait() != 0:
            sys.exit(f"the trainer failed: see {LOGS}/trainer.log")
    return store


def train_here(settings: list[str]) -> str:
    """The run in one process; the URL of its store."""
    store = f"sqlite:///{LOGS.absolute()}/here.db"
    with (LOGS / "here.log").open("ab") as log:
        command = [*AGL, "train", "config.yaml", *sets([f"store={store}", *settings])]
        subprocess.run(command, check=True, stdout=log, stderr=log)
    return store


def sets(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


async def outcomes(url: str) -> tuple[list[float], list[float], list[float]]:
    """Of the last run of a store: the mean of each step, and the held-out outcomes, sampled, before and after."""
    store = open_store(url)
    try:
        run = (await store.runs())[-1]
        rollouts = [it for it in await store.rollouts(run.id) if it.outcome is not None]
    finally:
        await store.close()
    last = max(it.step for it in rollouts)
    trained = [
        [it.outcome for it in rollouts if it.purpose == "train" and it.step == step] for step in range(1, last + 1)
    ]
    held_out = [it for it in rollouts if it.purpose == "evaluate" and it.variant == "sampled"]
    before, after = ([it.outcome for it in held_out if it.step == step] for step in (0, last))
    return [mean(values) for values in trained], before, after


def p_of(one: list[float], other: list[float]) -> float:
    """Two-sided, that two samples of right and wrong have one mean."""
    pooled = mean([*one, *other])
    error = (pooled * (1 - pooled) * (1 / len(one) + 1 / len(other))) ** 0.5
    return 1.0 if error == 0 else 2 * NormalDist().cdf(-abs(mean(one) - mean(other)) / error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--without-vllm", action="store_true")
    parser.add_argument("--vllm-python", default=sys.executable)
    parser.add_argument("--set", action="append", default=[], help="a key of config.yaml, as a.b=value")
    arguments = parser.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    settings = [f"algorithm.steps={arguments.steps}", *arguments.set]
    memory = "{VLLM_CPU_KVCACHE_SPACE: '1'}"  # GiB; where nothing says it, vLLM wants all of the machine's
    args = "[--enforce-eager]"  # compiling takes minutes on a CPU
    start = f"{{python: {arguments.vllm_python}, dtype: float32, args: {args}, environment: {memory}}}"
    vllm = [] if arguments.without_vllm else ["algorithm.backend=vllm", f"algorithm.vllm.start={start}"]
    found = {}
    for name, store in (("five processes", train_apart(settings, vllm)), ("one process", train_here(settings))):
        steps, before, after = found[name] = asyncio.run(outcomes(store))
        print(f"{name}: held out {mean(before):.3f} → {mean(after):.3f}; steps {' '.join(f'{it:.2f}' for it in steps)}")
    p = p_of(*(after for _, _, after in found.values()))
    print(f"held out at the end, five processes and one: p {p:.2f}")
    sys.exit(p < 0.01)


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)
    main()
