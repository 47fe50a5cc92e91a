"""A run that is cut off: ``{"name": "interrupted:Interrupted", …}``."""

from __future__ import annotations

from agentlightning import PolicyGradient
from agentlightning.algorithm import Run
from agentlightning.errors import AlgorithmError
from agentlightning.training_rows import Group


class Interrupted(PolicyGradient):
    """Ends in the middle of its third step, the first time; ``Interrupted.ended = False`` makes it end again."""

    ended = False

    async def collect(self, run: Run, step: int) -> list[Group]:
        if step == 3 and not Interrupted.ended:
            Interrupted.ended = True
            raise AlgorithmError("the end")
        return await super().collect(run, step)
