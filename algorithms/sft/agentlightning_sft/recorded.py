"""What deployed agents were recorded to say → rows in which that is trained.

The text is what is learned, rendered by the policy's own chat template: whatever model wrote it, and whether or not its
tokens are known. No log-probability is needed for cross-entropy, and none is made up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from agentlightning.chats import chats_of
from agentlightning.errors import AlgorithmError, DataError
from agentlightning.store.base import Recorded
from agentlightning.training_rows import TrainingRow
from agentlightning_gateway.chat import Chat
from agentlightning_gateway.protocol import ApiError
from agentlightning_sft.demonstrations import Demonstration, render

logger = logging.getLogger(__name__)


def rows_of_recorded(
    recorded: Sequence[Recorded], chat: Chat, *, policy: str, agents: Sequence[str]
) -> list[TrainingRow]:
    """The rows of what the agents of these name patterns wrote in each rollout.

    A rollout that the chat template cannot show is left out, and said. Raises `AlgorithmError` where none is left.
    """
    rows: list[TrainingRow] = []
    left_out: list[str] = []
    for one in recorded:
        try:
            for found in chats_of(one.spans, agents):
                demonstration = msgspec.convert({"messages": found.messages, "tools": found.tools}, Demonstration)
                rows += render(demonstration, chat, one.rollout.id, policy=policy, learned=found.answers)
        except (ApiError, DataError, msgspec.ValidationError) as error:
            left_out.append(f"rollout {one.rollout.id}: {error}")
    if left_out:
        logger.warning("%d of %d recorded rollouts are left out: %s", len(left_out), len(recorded), left_out[0])
    if not rows:
        why = left_out[0] if left_out else f"in none did an agent of the names {', '.join(agents)} get a whole answer"
        raise AlgorithmError(f"nothing to learn from in {len(recorded)} recorded rollouts: {why}")
    return rows
