"""Whether workers come for the rollouts of a run. Where none does, that is said, and the wait has an end."""

from __future__ import annotations

import time
from collections.abc import Iterable

from agentlightning.records import Rollout
from agentlightning.runner import RunnerSetup
from agentlightning_client.errors import ClientError

NOTICE_SECONDS = 5.0
"""After so long without a worker a message says how to start one."""


class Attendance:
    """Follows the workers of one run while some of its rollouts are waited for, at most ``wait_seconds`` long without
    one that leases or ends a rollout."""

    def __init__(self, setup: RunnerSetup, wait_seconds: float) -> None:
        self._run_id = setup.run.id
        self._message = setup.message
        self._rollout_seconds = setup.config.timeout
        self._wait_seconds = wait_seconds
        store = setup.store_url or "STORE"
        agent = setup.agent if isinstance(setup.agent, str) else "module:attribute"
        self._remedy = f"start one with: agl work {store} --agent {agent}"
        self._attempts: set[tuple[str, int]] = set()
        self._heard = time.monotonic()
        self._said = False

    @property
    def look_seconds(self) -> float:
        """How often to `look`."""
        return min(NOTICE_SECONDS, self._wait_seconds)

    def heard(self) -> None:
        """A worker has done something."""
        self._heard, self._said = time.monotonic(), False

    def look(self, waiting: Iterable[Rollout]) -> None:
        """Takes in how the rollouts stand that are waited for.

        Raises `ClientError` where no worker has leased one for too long. One that is leased is given the time that its
        agent may take besides: a worker that has vanished ends nothing.
        """
        attempts = {(rollout.id, rollout.attempt) for rollout in waiting if rollout.status == "running"}
        if attempts - self._attempts:
            self.heard()
        self._attempts = attempts
        silence = time.monotonic() - self._heard
        limit = self._wait_seconds + (self._rollout_seconds if attempts else 0.0)
        asked = f"no worker has asked for a rollout of run {self._run_id}"
        if silence >= limit:
            raise ClientError(f"{asked} for {silence:.0f} s (runner.config.wait_seconds): {self._remedy}")
        if not attempts and not self._said and silence >= NOTICE_SECONDS:
            self._said = True
            self._message(f"{asked}: {self._remedy}")
