"""How torch's threads wait for one another, unless the user has said otherwise; and the one in which it computes."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from agentlightning_policy.compute import compute, compute_async

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
PROBE = """
import os, sys, agentlightning_policy
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, ["None", "10000", "False"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "None", "False"]),
        ({"GOMP_SPINCOUNT": "7"}, ["None", "7", "False"]),
    ],
)
def test_threads_wait_as_said_before_torch_is_loaded(before: dict[str, str], after: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | before
    printed = subprocess.check_output([sys.executable, "-c", PROBE], env=environment, text=True)
    assert printed.split() == after


def where() -> threading.Thread:
    return threading.current_thread()


async def test_all_is_computed_in_one_thread_whoever_asks() -> None:
    first = compute(where)
    assert first is not where()
    assert await compute_async(where) is first
    assert await asyncio.to_thread(compute, where) is first
    assert compute(lambda: compute(where)) is first


async def test_what_a_computation_raises_is_raised_where_it_was_asked_for() -> None:
    with pytest.raises(ZeroDivisionError):
        compute(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await compute_async(lambda: 1 / 0)
    assert compute(lambda: 1) == 1


async def test_what_was_cancelled_before_it_began_is_not_computed() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def wait() -> None:
        begun.set()
        go_on.wait(10)

    waiting = asyncio.create_task(compute_async(wait))
    await asyncio.to_thread(begun.wait, 10)
    second = asyncio.create_task(compute_async(done.append, 1))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    go_on.set()
    await waiting
    assert compute(lambda: list(done)) == []


ENDS = """
import sys, threading, torch
from agentlightning_policy.compute import compute
computes = threading.Event()

def for_ever():
    one = torch.randn(64, 64, requires_grad=True)
    while True:
        torch.tanh(one @ one).sum().backward()
        computes.set()

threading.Thread(target=compute, args=(for_ever,), daemon=True).start()
computes.wait()
sys.exit(130)
"""


def test_a_process_that_ends_while_torch_computes_ends_as_it_said() -> None:
    ended = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_so_does_one_in_which_nothing_is_computed_any_more() -> None:
    program = "import sys; from agentlightning_policy.compute import compute; print(compute(int)); sys.exit(7)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "0\n", "")
