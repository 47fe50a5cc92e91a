"""Which replica answers, and when none may."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlightning.errors import PolicyError
from agentlightning.sampler import SamplerUnavailableError
from agentlightning_gateway.endpoint import Endpoint
from agentlightning_vllm import replicas as module
from agentlightning_vllm.control import ReplicaControl
from agentlightning_vllm.replicas import MORE_BUSY, Lease, Replica, ReplicaSet, Served, conversation


def replicas_of(count: int, failed: list[Replica] | None = None) -> ReplicaSet:
    urls = [f"http://127.0.0.1:{port}" for port in range(1, count + 1)]
    found = [Replica(url, Endpoint(url, logprobs="raw"), ReplicaControl(url)) for url in urls]
    made = ReplicaSet(found, (failed if failed is not None else []).append)
    for replica in found:
        made.put_in(replica)
    made.serve(Served(0, "m"))
    return made


async def test_a_conversation_stays_where_it_was_and_others_go_where_least_is_done() -> None:
    replicas = replicas_of(3)
    first = [await replicas.lease(bytes([key])) for key in range(3)]
    assert {lease.replica for lease in first} == set(replicas.replicas)
    again = [await replicas.lease(bytes([key])) for key in (2, 1, 0)]
    assert [lease.replica for lease in again] == [lease.replica for lease in reversed(first)]


async def test_a_replica_that_is_much_busier_is_left_by_its_conversations() -> None:
    replicas = replicas_of(2)
    homes = [(await replicas.lease(b"group")).replica for _ in range(MORE_BUSY + 2)]
    assert len(set(homes[: MORE_BUSY + 1])) == 1
    assert homes[-1] is not homes[0]


async def test_a_conversation_leaves_a_replica_that_is_out() -> None:
    failed: list[Replica] = []
    replicas = replicas_of(2, failed)
    home = (await replicas.lease(b"a")).replica
    replicas.put_out(home, "gone")
    assert (await replicas.lease(b"a")).replica is not home
    assert failed == [home]
    assert replicas.reasons == f"{home.url}: gone"


async def test_while_weights_are_pushed_those_under_way_end_and_others_wait() -> None:
    replicas = replicas_of(1)
    running = await replicas.lease(b"a")
    events: list[str] = []

    async def push() -> None:
        async with replicas.paused():
            events.append("pushed")
            replicas.serve(Served(1, "m"))

    async def ask() -> Lease:
        lease = await replicas.lease(b"b")
        events.append("asked")
        return lease

    pushing = asyncio.create_task(push())
    await asyncio.sleep(0)
    asking = asyncio.create_task(ask())
    for _ in range(5):
        await asyncio.sleep(0)
    assert events == []
    replicas.release(running)
    await pushing
    assert (running.served.version, (await asking).served.version) == (0, 1)
    assert events == ["pushed", "asked"]


async def test_waits_have_an_end_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    replicas = replicas_of(1)
    lease = await replicas.lease(b"a")
    with pytest.raises(PolicyError, match="requests still run"):
        async with replicas.paused():
            pass
    replicas.release(lease)
    replicas.put_out(replicas.replicas[0], "its process has ended")
    with pytest.raises(SamplerUnavailableError, match=r"no vLLM replica is in service: .*its process has ended"):
        await replicas.lease(b"a")
    with pytest.raises(PolicyError, match="its process has ended"):
        await replicas.someone_in_service()
    replicas.close()
    with pytest.raises(SamplerUnavailableError, match="are being stopped"):
        await replicas.lease(b"a")


async def test_a_request_that_waits_is_answered_by_the_replica_that_comes_in() -> None:
    replicas = replicas_of(1)
    (replica,) = replicas.replicas
    replicas.put_out(replica, "gone")
    asking = asyncio.create_task(replicas.lease(b"a"))
    left = asyncio.create_task(replicas.lease(b"b"))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    replicas.put_in(replica)
    assert (await asking).replica is replica
    assert replica.in_flight.total() == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["lease", "release", "out", "in"]), st.integers(0, 2), st.binary(max_size=1)),
        max_size=40,
    )
)
def test_leases_are_of_replicas_in_service_and_counted(steps: list[tuple[str, int, bytes]]) -> None:
    async def run() -> None:
        replicas, held = replicas_of(3), list[Lease]()
        for what, index, key in steps:
            replica = replicas.replicas[index]
            if what == "out":
                replicas.put_out(replica, "gone")
            elif what == "in":
                replicas.put_in(replica)
            elif what == "release" and held:
                replicas.release(held.pop(index % len(held)))
            elif what == "lease" and replicas.in_service:
                held.append(await replicas.lease(key))
                assert held[-1].replica.out is None
            of_each = [sum(lease.replica is each for lease in held) for each in replicas.replicas]
            assert [each.in_flight.total() for each in replicas.replicas] == of_each

    asyncio.run(run())


def test_prompts_of_one_rollout_or_of_one_beginning_are_one_conversation() -> None:
    one, other = np.arange(300, dtype=np.int32), np.arange(400, dtype=np.int32)
    assert conversation(one, "r") == conversation(other[::-1], "r") != conversation(one, "s")
    assert conversation(one, None) == conversation(other, None) != conversation(other[1:], None)
