"""Kills a Lightning Server, its workers and the trainer at random moments, starts them again, and counts in the end.

`nox -s soak -- --kills 20 --seed 0`. Meanwhile a witness writes spans and feedback, and keeps what was acknowledged.
It ends by itself, with exit code 1 where something acknowledged is lost, done twice, or missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import make_tiny_model
from losing_network import lasting_port
from small_project import make_project

from agentlightning.errors import StoreError
from agentlightning.records import Rollout, Span, Task, new_id
from agentlightning.store import RunRecord, open_store
from agentlightning.store.base import Store

AGL = [sys.executable, "-c", "from agentlightning.cli import main; main()"]
SESSION_SECONDS = 5
"""How long a run stays that of a trainer which was killed."""
NAME = "small"
STEPS, ROLLOUTS_A_STEP, CALLS = 30, 16, 2
"""Of the small project; each rollout makes two model calls."""
START_SECONDS, LIMIT_SECONDS = 120.0, 2400.0
MOST_STARTS = 6
"""Of a part, beside one for each kill: it may end by itself when another one was killed."""


class Part:
    """One process of the system, started again whenever it has ended and should not have."""

    def __init__(self, name: str, folder: Path, *command: str) -> None:
        self.name = name
        self.kills = self.starts = 0
        self._folder = folder
        self._command = [*AGL, *command]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        """``more`` is added to the command."""
        self.starts += 1
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OPENAI_API_KEY": "none"}
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *more],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    @property
    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    def said(self) -> str:
        """The last line of its log."""
        return (self._folder / f"{self.name}.log").read_text(errors="replace").rstrip().rpartition("\n")[2]

    def kill(self) -> None:
        """As the kernel does: nothing is flushed, said or closed."""
        if self._process is not None and self.ended is None:
            self._process.kill()
            self._process.wait()


class Witness(threading.Thread):
    """Writes to the store all the time, a run of its own and feedback on the trained one, and keeps what was
    acknowledged."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.spans: list[str] = []
        self.feedback: set[str] = set()
        self.rollout_id = new_id()
        self.run_id = f"witness-{new_id()}"
        self._url = url
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        asyncio.run(self._write())

    async def _write(self) -> None:
        store = await _open(self._url)
        await store.open_run(RunRecord(id=self.run_id, name="witness", algorithm="none", config={}, seed=0))
        await store.add_tasks(self.run_id, [Task(id="task", input="")])
        rollout = Rollout(
            id=self.rollout_id, run_id=self.run_id, group_id="group", task_id="task", purpose="train", collection="one"
        )
        await store.enqueue([rollout])
        while not self._stopping.is_set():
            batch = [self._span(len(self.spans) + number) for number in range(10)]
            store.add_spans(batch)
            await store.flush()
            self.spans += [span.id for span in batch]
            await self._feed_back(store)
            await asyncio.sleep(0.2)
        await store.close()

    def _span(self, index: int) -> Span:
        now = time.time()
        return Span(
            id=new_id(),
            rollout_id=self.rollout_id,
            attempt=0,
            index=index,
            kind="annotation",
            name="witness",
            started_at=now,
            ended_at=now,
        )

    async def _feed_back(self, store: Store) -> None:
        """A word on one rollout that has ended; where the server is away it is not acknowledged, and not counted."""
        trained = [run for run in await store.runs() if run.id != self.run_id]
        ended = [it for it in await store.rollouts(trained[-1].id) if it.finished] if trained else []
        left = [rollout.id for rollout in ended if rollout.id not in self.feedback]
        if not left:
            return
        try:
            async with httpx.AsyncClient() as client:
                answer = await client.post(f"{self._url}/v1/feedback", json={"rollout_id": left[0], "thumbs": "up"})
        except httpx.TransportError:
            return
        if answer.status_code == 200:
            self.feedback.add(left[0])


async def _open(url: str) -> Store:
    """The store of a server that is just being started."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                return open_store(url)
            except StoreError:
                await asyncio.sleep(0.5)


def soak(folder: Path, kills: int, seconds: float, seed: int) -> list[str]:
    """Runs all of it; what was wrong in the end."""
    port = lasting_port()
    url = f"http://127.0.0.1:{port}"
    project = make_project(folder, make_tiny_model(folder / "model"))
    config = json.loads((project / "config.yaml").read_text())
    config["algorithm"].update(steps=STEPS, checkpoint_every=1, batch_tasks=4)
    config.update(store=url, runner={"name": "clients", "retries": 20, "timeout": 60})
    (project / "config.yaml").write_text(json.dumps(config), encoding="utf-8")

    serve = (
        "server",
        "--store",
        f"sqlite:///{folder}/store.db",
        "--port",
        str(port),
        "--session-seconds",
        str(SESSION_SECONDS),
    )
    server = Part("server", folder, *serve)
    workers = [
        Part(f"worker{number}", folder, "work", url, "--agent", "two_turns:graph", "--forever") for number in (1, 2)
    ]
    trainer = Part("trainer", folder, "train", "config.yaml")
    parts = [server, *workers, trainer]
    for part in parts:
        part.start()
    witness = Witness(url)
    witness.start()
    try:
        kill_at_random(parts, trainer, f"sqlite:///{folder}/store.db", kills, seconds, random.Random(seed))
        witness.stop()
        return asyncio.run(what_is_wrong(url, witness, parts, kills))
    finally:
        for part in parts:
            part.kill()


def kill_at_random(
    parts: list[Part], trainer: Part, store: str, kills: int, seconds: float, draw: random.Random
) -> None:
    """Kills a part, as often as asked or until the run has ended: within so many ``seconds`` after another rollout has
    ended since the last kill, so that every kill is one of work. Then waits for the end of the run.

    Raises `TimeoutError` where it takes longer than `LIMIT_SECONDS`, and `RuntimeError` where a part does not stay up.
    """
    until = time.monotonic() + LIMIT_SECONDS
    ended = 0
    while trainer.ended != 0:
        if time.monotonic() > until:
            raise TimeoutError(f"not done after {LIMIT_SECONDS:.0f} s")
        for part in parts:
            if part.starts > MOST_STARTS + sum(it.kills for it in parts):
                raise RuntimeError(f"{part.name} ends by itself, {part.starts} times by now: {part.said()}")
        time.sleep(0.5)
        for part in parts:
            if part.ended is not None and (part is not trainer or part.ended != 0):
                part.start(*(["--resume"] if part is trainer and how_far(store) is not None else []))
        now = how_far(store)
        if sum(part.kills for part in parts) < kills and now is not None and now > ended:
            time.sleep(draw.uniform(0.0, seconds))
            part = draw.choice(parts)
            part.kill()
            part.kills += 1
            ended = how_far(store) or 0
            print(f"killed {part.name} after {ended} rollouts", flush=True)


def how_far(url: str) -> int | None:
    """How many rollouts of the run have ended; None where there is no run to go on with."""

    async def look() -> int | None:
        store = open_store(f"{url}?mode=ro")
        try:
            found = [run.id for run in await store.runs() if run.name == NAME]
            return sum(it.finished for it in await store.rollouts(found[0])) if found else None
        finally:
            await store.close()

    try:
        return asyncio.run(look())
    except StoreError:  # there is no file yet
        return None


async def what_is_wrong(url: str, witness: Witness, parts: list[Part], kills: int) -> list[str]:
    """Looks at what is in the store, says what was retried, and returns what should not be so."""
    store = open_store(url)
    try:
        (run,) = [run for run in await store.runs() if run.id != witness.run_id]
        rollouts = await store.rollouts(run.id)
        spans = {rollout.id: await store.spans(rollout.id, attempt=rollout.attempt) for rollout in rollouts}
        losses = Counter(metric.step for metric in await store.metrics(run.id) if metric.name == "loss")
        witnessed = Counter(span.id for span in await store.spans(witness.rollout_id))
    finally:
        await store.close()
    report(parts, witness, rollouts)
    killed = sum(part.kills for part in parts)
    collections = Counter((it.collection, it.group_id, it.sample) for it in rollouts)
    train = Counter(it.step for it in rollouts if it.purpose == "train")
    faults = {
        f"the run is {run.status}": run.status != "succeeded",
        f"training rollouts by step: {dict(train)}": train != dict.fromkeys(range(1, STEPS + 1), ROLLOUTS_A_STEP),
        "a sample of a group is there twice": max(collections.values()) > 1,
        "a rollout has not succeeded": any(it.status != "succeeded" for it in rollouts),
        "a rollout has not its reward once": any(_scores(it) != 1 for it in rollouts),
        "a rollout has not its two model calls": any(_calls(of_one) != CALLS for of_one in spans.values()),
        "two spans of an attempt have one place": any(_doubled(of_one) for of_one in spans.values()),
        f"losses by step: {dict(losses)}": losses != dict.fromkeys(range(1, STEPS + 1), 1),
        "an acknowledged span is lost": any(witnessed[id] != 1 for id in witness.spans),
        "acknowledged feedback is lost": not witness.feedback <= {it.id for it in rollouts if _has_feedback(it)},
        f"the run had ended after {killed} kills: raise STEPS": killed < kills,
        "nobody witnessed anything": not witness.spans or not witness.feedback,
    }
    return [fault for fault, is_so in faults.items() if is_so]


def report(parts: list[Part], witness: Witness, rollouts: list[Rollout]) -> None:
    for part in parts:
        print(f"{part.name}: killed {part.kills} times, started {part.starts} times")
    again = Counter(it.attempt for it in rollouts if it.attempt > 1)
    reasons = Counter(failure.type for it in rollouts for failure in it.failed_attempts)
    print(f"{len(rollouts)} rollouts; begun again: {sum(again.values())}, the last attempt being {dict(again)}")
    print(f"attempts that failed and were tried again: {dict(reasons) or 'none'}")
    print(f"acknowledged to the witness: {len(witness.spans)} spans, feedback on {len(witness.feedback)} rollouts")


def _scores(rollout: Rollout) -> int:
    return sum(reward.name == "score" for reward in rollout.rewards)


def _has_feedback(rollout: Rollout) -> bool:
    return any(reward.name == "feedback" for reward in rollout.rewards)


def _calls(spans: list[Span]) -> int:
    return sum(span.kind == "llm" and span.failure is None for span in spans)


def _doubled(spans: list[Span]) -> bool:
    places = [span.index for span in spans if not _is_feedback(span)]
    return len(places) != len(set(places))


def _is_feedback(span: Span) -> bool:
    return span.kind == "reward" and span.name == "feedback"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4.0, help="within which a kill follows on work, at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = soak(Path(folder), arguments.kills, arguments.seconds, arguments.seed)
        if wrong:
            print("WRONG:", *wrong, sep="\n  ")
            for log in sorted(Path(folder).glob("*.log")):
                print(f"--- the end of {log.name}", log.read_text(errors="replace")[-3000:], sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
