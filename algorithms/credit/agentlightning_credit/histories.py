"""What a rollout did before each of its calls, token for token."""

from __future__ import annotations

import hashlib

from agentlightning.training_rows import RolloutRows
from agentlightning_credit.states import digest_of

History = bytes
"""The same for the same calls: prompts and answers, in the same order."""


def histories(member: RolloutRows) -> list[History]:
    """Of each number of calls from 0 to all T of a rollout, what they were: (T + 1,)."""
    digest = hashlib.blake2b(digest_size=16)
    found = [digest.digest()]
    for row, call in member.transitions:
        digest.update(digest_of(row.token_ids[: call.start], row.token_ids[call.start : call.end]))
        found.append(digest.digest())
    return found
