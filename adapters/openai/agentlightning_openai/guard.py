"""The last look at a model call before it is sent, for those that did not pass through `patch` on their way."""

from __future__ import annotations

import logging
from typing import Any

from agentlightning import semconv
from agentlightning.errors import RedirectError
from agentlightning.recording import Recorder, current, failure_of, locate
from agentlightning.recording.strays import any_active, belongs_to_none
from agentlightning.tracebacks import caller
from agentlightning_openai.request import Operation, attributes_of, body_of, endpoint_of, operation_of

logger = logging.getLogger(__name__)

FORKED = (
    "it is made in a process that was forked from its rollout's, where nothing that is recorded is kept: make it in "
    "the agent's own process, in a thread where it is to run beside others"
)
UNSEEN = (
    "on its way it was not seen. Somebody keeps a method of the openai client from before Agent Lightning hooked into "
    "it, or has put another in its place: make the Trainer, or install the adapter, before that; or have the agent "
    "imported by it, as in agent='module:attribute'"
)

_warned: set[tuple[str, str | None]] = set()


def check(client: Any, options: Any) -> None:
    """Looks at a request that is about to be sent, of a call that is not being recorded.

    One that belongs to no rollout is noted (`agentlightning.recording.strays`). One that belongs to a rollout is an
    error where that has resources, since it would be sent as it is: raises `RedirectError`; else, and where it is a
    deployed agent's, a warning, once for each location.
    """
    recorder = current()
    if recorder is None and not any_active():
        return
    operation = operation_of(options)
    if operation is None or operation == "embeddings":
        return
    model = (body_of(options) or {}).get("model")
    host = str(endpoint_of(client, options.url)[semconv.SERVER_ADDRESS])
    if recorder is None:
        belongs_to_none(model, host)
        return
    reason, location = FORKED if recorder.forked else UNSEEN, caller()
    if recorder.resources and recorder.is_live:
        recorder.leave_resources(f"a call of {model} at {host}, made in {location}: {reason}")
    if recorder.resources:
        error = RedirectError(f"a call of {model} at {host}, made in {location}, was not sent: {reason}")
        if not recorder.forked:
            _record(recorder, options, operation, error)
        raise error
    if (reason, location) not in _warned:
        _warned.add((reason, location))
        logger.warning("a call of %s at %s, made in %s, is not recorded: %s", model, host, location, reason)


def _record(recorder: Recorder, options: Any, operation: Operation, error: RedirectError) -> None:
    """As a call that failed, so that an agent which goes on without its answer has no valid result."""
    span = recorder.start_call(operation, parent=locate(recorder))
    span.attributes.update(attributes_of(operation, body_of(options) or {}))
    recorder.end(span, failure_of(error))
