"""How many rollouts a run's learning may cost, and how many of them are left."""

from __future__ import annotations

from collections.abc import Sequence

from agentlightning.errors import BudgetError
from agentlightning.records import Purpose, Rollout
from agentlightning.store.base import Store

COUNTED: tuple[Purpose, ...] = ("train", "branch", "validate")
"""What learning costs: all that is no report."""


class Budget:
    """``rollouts`` of one run, None for any number. What a run that goes on asks for again was counted before."""

    def __init__(self, run_id: str, store: Store, rollouts: int | None) -> None:
        self._run_id = run_id
        self._store = store
        self._rollouts = rollouts
        self._taken: set[str] | None = None

    async def left(self) -> int | None:
        """How many are left; None for any number, and never less than 0."""
        return None if self._rollouts is None else max(0, self._rollouts - len(await self._counted()))

    async def take(self, planned: Sequence[Rollout]) -> None:
        """Counts rollouts before they are queued. Raises `BudgetError`, and counts none, where they are too many."""
        if self._rollouts is None or planned[0].purpose not in COUNTED:
            return
        taken = await self._counted()
        new = {rollout.id for rollout in planned} - taken
        left = self._rollouts - len(taken)
        if len(new) > left:
            raise BudgetError(
                f"the collection {planned[0].collection!r} asks for {len(new)} rollouts, and {max(0, left)} are left "
                f"of the budget of {self._rollouts}: raise `budget`, or ask for less at a time"
            )
        taken |= new

    async def _counted(self) -> set[str]:
        if self._taken is None:
            recorded = await self._store.rollouts(self._run_id)
            self._taken = {rollout.id for rollout in recorded if rollout.purpose in COUNTED}
        return self._taken
