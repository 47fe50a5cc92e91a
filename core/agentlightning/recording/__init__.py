"""What happens in the current rollout, written as it happens.

A `Recorder` belongs to one attempt of one rollout and is current in a context. With no rollout active, every function
here returns at once.
"""

from agentlightning.recording.api import annotate, prompt, reward, span
from agentlightning.recording.context import add_locator, current, innermost, locate, recording, remove_locator
from agentlightning.recording.deployed import current_rollout, live
from agentlightning.recording.failures import failure_of, guarded
from agentlightning.recording.recorder import Recorder, current_span, matches
from agentlightning.recording.strays import StrayCall, outside, stray_calls

__all__ = [
    "Recorder",
    "StrayCall",
    "add_locator",
    "annotate",
    "current",
    "current_rollout",
    "current_span",
    "failure_of",
    "guarded",
    "innermost",
    "live",
    "locate",
    "matches",
    "outside",
    "prompt",
    "recording",
    "remove_locator",
    "reward",
    "span",
    "stray_calls",
]
