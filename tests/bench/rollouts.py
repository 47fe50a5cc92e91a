"""A thousand trivial rollouts through the Trainer, start to end: ``python tests/bench/rollouts.py``."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from agentlightning import Algorithm, Trainer
from agentlightning.algorithm import Run
from agentlightning.cli.progress import make_progress

ROLLOUTS = 1000


class CollectOnce(Algorithm):
    """Runs every task once."""

    async def run(self, run: Run) -> None:
        groups = [group async for group in run.collect(run.tasks, group_size=1, step=1)]
        run.result("rollouts", str(sum(len(group.rollouts) for group in groups)))


def echo(text: str) -> str:
    return text


def same(rollout, task) -> float:
    return float(rollout.output == task.input)


def tasks(count: int) -> Sequence[dict[str, str]]:
    return [{"id": f"task-{number}", "input": f"say {number}"} for number in range(count)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            echo,
            tasks(ROLLOUTS),
            same,
            CollectOnce({}),
            held_out=tasks(1),
            store=f"sqlite:///{Path(folder) / 'bench.db'}",
            directory=folder,
            progress=make_progress(quiet=True),
        )
        wall, cpu = time.perf_counter(), time.process_time()
        result = trainer.fit()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{result.results['rollouts']} rollouts of a plain function: {wall:.2f} s, {cpu:.2f} s CPU")
