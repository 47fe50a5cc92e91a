"""What is recorded of a call that passes: the span that adapters/openai would write of it, by the same functions."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from agentlightning import semconv
from agentlightning.adapterkit.failures import type_of_status
from agentlightning.recording import Recorder, failure_of
from agentlightning.records import Failure, Policy, Span
from agentlightning_openai.additions import Additions
from agentlightning_openai.request import Operation
from agentlightning_openai.response import Answer, failure_in, read, unreadable
from agentlightning_openai.spans import write_answer, write_endpoint, write_request
from agentlightning_openai.stream import JOINERS, Joiner
from agentlightning_server.gateway.chunks import TextChunks
from agentlightning_server.gateway.completions import fields_in, parsed_completion
from agentlightning_server.gateway.events import DONE, EventSplitter, data_of, with_data
from agentlightning_server.gateway.forward import Outgoing

logger = logging.getLogger(__name__)

MAX_SHOWN = 2000
"""Characters of an error's body in a failure."""
_LAST = ("response.completed", "response.incomplete", "response.failed", "error")


class Capture:
    """One call: its span, and what its client is to get.

    ``original`` is what the client asked, ``sent`` what the upstream was asked; what only ``sent`` asks for is taken
    out of the answer.
    """

    def __init__(
        self, recorder: Recorder, operation: Operation, original: Mapping[str, Any], *, agent: str | None
    ) -> None:
        self.operation = operation
        self.original = original
        self.span: Span = recorder.start("llm", operation, agent=agent)
        self.failure: Failure | None = None
        self.outgoing: Outgoing | None = None
        """The request that was sent for it, which counts how often."""
        self._recorder = recorder
        self._began = time.perf_counter()
        self._additions = Additions(original, original)
        self._joiner: Joiner = JOINERS[operation]()
        self._texts = TextChunks(self._joiner)
        self._events = EventSplitter()
        self._held: list[bytes] = []
        self._answered: dict[str, Any] | None = None
        self._done = False

    def sends(self, sent: Mapping[str, Any], policy: Policy | None, *, routed_to: str | None = None) -> None:
        """This is sent, for ``policy`` to answer it where that is not None, or by the choice that a router made."""
        self._additions = Additions(self.original, sent)
        write_request(self.span, self.operation, sent, policy)
        if routed_to is not None:
            self.span.attributes[semconv.MODEL_CHOICE] = routed_to

    def sent_to(self, url: str, *, is_redirected: bool) -> None:
        """It was answered there."""
        write_endpoint(self.span, None, url, is_redirected=is_redirected)

    def whole(self, body: bytes) -> Answer:
        """What an answer says that is no stream."""
        try:
            if self.operation == "responses":
                data = msgspec.json.decode(body)
                answer = read(data, self.operation)
                self._answered = data if isinstance(data, dict) else None
            else:
                self._answered = fields_in(body)
                answer = read(parsed_completion(self._answered), self.operation)
        except Exception as error:  # noqa: BLE001 - whatever an upstream may have sent; the client gets it all the same
            logger.debug("an answer could not be read: %s", error)
            self._answered = None
            return Answer(failure=unreadable(body.decode(errors="replace")))
        return answer

    def shown(self, body: bytes) -> bytes:
        """What of that answer the client is to get."""
        if self._answered is None or self._additions.none or not self._additions.take_out(self._answered):
            return body
        return msgspec.json.encode(self._answered)

    def refused(self, status: int, body: bytes) -> Answer:
        """An answer whose status is an error."""
        text = body.decode(errors="replace")[:MAX_SHOWN]
        type, fault = type_of_status(status, text)
        return Answer(failure=Failure(type=type, message=f"the endpoint answered {status}: {text}", fault=fault))

    def take(self, data: bytes) -> bytes:
        """A piece of a stream; what of it the client may have now. Its end is held back (`held`)."""
        return b"".join([self._take_event(event) for event in self._events.split(data)])

    @property
    def held(self) -> bytes:
        """The end of a stream: what the client is to get when the call is recorded."""
        return b"".join(self._held) + self._events.rest

    def end_of_stream(self) -> Answer:
        """What the stream said."""
        answer = self._said()
        answer.failure = answer.failure or self.failure
        if not answer.choices and answer.failure is None:
            message = "the endpoint's stream ended without an answer"
            answer.failure = Failure(type="invalid_response", message=message, fault="infrastructure")
        return answer

    def finish(self, answer: Answer) -> None:
        """Writes the answer into the span and ends it, once."""
        if not self._done:
            self._done = True
            retries = self.outgoing.retries if self.outgoing is not None else 0
            write_answer(self._recorder, self.span, self.operation, answer, retries=retries, at=None)
            self._recorder.end(self.span, answer.failure)

    def fail(self, error: Exception, type: str) -> None:
        """The call has failed on the way, by no fault of the agent's: what was seen of its answer is kept."""
        answer = self._said()
        answer.failure = failure_of(error, type, "infrastructure")
        self.finish(answer)

    def client_left(self) -> None:
        """The client is gone. Where it has read some of a stream that is its answer, as for whoever leaves one early;
        else the call was cancelled."""
        answer = self._said()
        self.span.attributes[semconv.CLIENT_LEFT] = True
        if not answer.choices:
            answer.failure = Failure(type="cancelled", message="the client left before it was answered")
        self.finish(answer)

    def _said(self) -> Answer:
        """What a stream has said so far."""
        self._texts.join()
        return self._joiner.answer()

    def _take_event(self, event: bytes) -> bytes:
        data = data_of(event)
        if data.startswith(DONE) or self._held:
            self._held.append(event)
            return b""
        has_begun = semconv.TIME_TO_FIRST_TOKEN in self.span.attributes
        if has_begun and self.operation == "chat" and self._additions.are_tokens:
            text = self._texts.take(data)
            if text is not None:
                return with_data(event, text)
            self._texts.join()
        try:
            said = msgspec.json.decode(data) if data else None
            if not isinstance(said, dict):
                return event
            if self._joiner.add(said) and not has_begun:
                self.span.attributes[semconv.TIME_TO_FIRST_TOKEN] = time.perf_counter() - self._began
            if "choices" not in said:
                self.failure = failure_in(said.get("error")) or self.failure
        except Exception as error:  # noqa: BLE001 - whatever an upstream may have sent
            logger.debug("an event of a stream could not be read: %s", error)
            return event
        if not self._additions.none:
            if self._additions.is_only_usage(said):
                return b""
            if self._additions.take_out(said):
                event = with_data(event, msgspec.json.encode(said))
        if said.get("type") in _LAST:
            self._held.append(event)
            return b""
        return event
