"""One model call, from its request to the end of its answer."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from agentlightning import semconv
from agentlightning.errors import RedirectError
from agentlightning.recording import Recorder, failure_of, locate
from agentlightning.records import Failure, Policy, Span
from agentlightning_openai.body import BodyWatch, answer_in, read_json
from agentlightning_openai.credentials import remember_credentials
from agentlightning_openai.direct import send_directly
from agentlightning_openai.failures import classify
from agentlightning_openai.internals import chunks_of, is_stream, replace_chunks
from agentlightning_openai.request import Operation, body_of, operation_of
from agentlightning_openai.response import Answer, hide_additions, read, unreadable
from agentlightning_openai.router import ResourceRouter, goes_to_gateway, recorded_here
from agentlightning_openai.spans import write_answer, write_endpoint, write_request
from agentlightning_openai.stream import JOINERS, AsyncWatched, Joiner, Watched

logger = logging.getLogger(__name__)


def begin(recorder: Recorder, client: Any, options: Any) -> Call | None:
    """The record of a request that is about to be sent, with the options to send in place of ``options``;
    None where it is no model call.

    An error of our own leaves the call unrecorded, with a log entry; but where the rollout has resources it
    raises `RedirectError`, since the call could then reach an endpoint that it was not meant for. A deployed agent's
    call is sent as it is instead.
    """
    try:
        operation = operation_of(options)
        return _begin(recorder, client, options, operation) if operation is not None else None
    except RedirectError:
        raise
    except Exception as error:
        if recorder.resources and not recorder.is_live:
            raise RedirectError(f"a model call could not be matched with the rollout's resources: {error}") from error
        logger.exception("a model call could not be recorded; it goes on unrecorded")
        return None


def _begin(recorder: Recorder, client: Any, options: Any, operation: Operation) -> Call:
    remember_credentials(client, options)
    body = body_of(options)
    parent = locate(recorder)
    agent = parent.agent if parent is not None else None
    router = ResourceRouter(recorder, agent) if recorder.resources and operation != "embeddings" else None
    span = recorder.start_call(operation, parent=parent)
    call = Call(recorder, span, client, operation)
    if router is None or not router.has_resources:
        call.send(copy.copy(options), body or {})
        return call
    try:
        routed, sent = router.apply(client, options, body, operation)
    except Exception as error:
        if recorder.is_live:
            recorder.leave_resources(f"{span.name} of agent {agent or '(none)'}: {error}")
            call.send(copy.copy(options), body or {})
            return call
        write_request(span, operation, body or {})
        recorder.end(span, failure_of(error, "redirect_failed", "infrastructure"))
        raise RedirectError(f"{span.name} of agent {agent or '(none)'} was not sent: {error}") from error
    call.router, call.original_body = router, body or {}
    call.send(routed, sent)
    return call


class Call:
    """One model call being recorded. The client calls it, as its request's ``post_parser``, with whatever it
    has parsed for the agent; nothing that goes wrong in here reaches the agent. As a context manager it takes what the
    request raises."""

    def __init__(self, recorder: Recorder, span: Span, client: Any, operation: Operation) -> None:
        self.recorder = recorder
        self.span = span
        self.operation = operation
        self.options: Any = None
        self.router: ResourceRouter | None = None
        self.original_body: Mapping[str, Any] = {}
        self.was_sent = False
        self.retries = 0
        self.reading = False
        """Whether the next chunk of a stream is being waited for (and not the agent, which has the last one)."""
        self._client = client
        self._agents_parser: Callable[[Any], Any] | None = None
        self._joiner: Joiner | None = None
        self._hides_usage = False
        self._gets_tokens = False
        """Whether a gateway of ours leaves tokens in the answer, for this to record."""
        self._watch: BodyWatch | None = None
        self._started = time.perf_counter()
        self._last_chunk_at: float | None = None
        self._done = False
        recorder.on_close(span, self._rollout_ended)

    def send(self, options: Any, body: Mapping[str, Any]) -> None:
        """Takes a copy of the request's options as those to send, and becomes their ``post_parser``."""
        self._agents_parser = options.post_parser if callable(options.post_parser) else None
        options.post_parser = self
        self.options = options
        redirected = self.router is not None and self.router.redirects
        if not redirected and goes_to_gateway(self._client, options, self.recorder.rollout_id):
            recorded_here(options)
            self._gets_tokens = True
            self.original_body = self.original_body if self.router is not None else body
        wanted = (self.original_body if self.router is not None else body).get("stream_options") or {}
        sent = body.get("stream_options") or {}
        self._hides_usage = bool(sent.get("include_usage")) and not wanted.get("include_usage")
        write_endpoint(self.span, self._client, options.url, is_redirected=redirected)
        write_request(self.span, self.operation, body, self._policy)
        if self.router is not None and self.router.model_router is not None and self.router.choice is not None:
            self.span.attributes[semconv.MODEL_CHOICE] = self.router.choice.name

    def built(self, request: Any) -> None:
        """An HTTP request for it was built, and is about to be sent."""
        self.was_sent = True
        if self.router is not None and self.router.goes_directly:
            send_directly(request)

    @property
    def _hides_additions(self) -> bool:
        """Whether answers hold what the agent has not asked for."""
        return self._gets_tokens or self._policy is not None

    @property
    def _policy(self) -> Policy | None:
        """The policy that answers it."""
        return self.router.policy if self.router is not None else None

    def __call__(self, parsed: Any) -> Any:
        """What the client has parsed, on its way to the agent."""
        try:
            self._take(parsed)
        except Exception:
            logger.exception("the answer of a model call could not be recorded")
            self.finish(Answer())
        return self._agents_parser(parsed) if self._agents_parser is not None else parsed

    def _take(self, parsed: Any) -> None:
        if hasattr(parsed, "model_extra"):
            self.finish(read(parsed, self.operation))
            if self._hides_additions:
                hide_additions(parsed, self.original_body)
        elif is_stream(parsed):
            self._follow(parsed)
        elif isinstance(parsed, dict):
            self.finish(read_json(parsed, self.operation))
        else:
            self.finish(Answer(failure=unreadable(parsed)))

    def _follow(self, stream: Any) -> None:
        """A stream, which the agent has not begun to read."""
        if self._done or self.operation not in JOINERS:
            return
        self._joiner = JOINERS[self.operation]()
        chunks = chunks_of(stream)
        replace_chunks(stream, (AsyncWatched if hasattr(chunks, "__anext__") else Watched)(self, chunks))
        if self._watch is None:
            self._watch = BodyWatch(stream.response, self._closed)

    def waits_for_chunk(self) -> None:
        """The agent reads the stream, and so what the body under it says need not be kept."""
        self.reading = True
        if self._watch is not None:
            self._watch.keep = False

    @property
    def _is_followed(self) -> bool:
        """Whether the parsed stream is read, not the body under it: others may have had it parsed, and dropped it."""
        return self._joiner is not None and self._watch is not None and not self._watch.keep

    def take_chunk(self, chunk: Any) -> bool:
        """Takes a chunk of the stream; whether the agent is to have it."""
        self._last_chunk_at = time.time()
        try:
            if self._joiner is not None and self._joiner.add(chunk):
                elapsed = time.perf_counter() - self._started
                self.span.attributes.setdefault(semconv.TIME_TO_FIRST_TOKEN, elapsed)
            if self._hides_additions:
                hide_additions(getattr(chunk, "response", chunk), self.original_body)
            return not (self._hides_usage and getattr(chunk, "usage", None) is not None and not chunk.choices)
        except Exception:
            logger.exception("a chunk of a model's stream could not be recorded")
            return True

    def end_of_stream(self) -> None:
        """The stream has ended."""
        if self._joiner is None:
            return
        answer = self._joiner.answer()
        if not answer.choices and answer.failure is None:
            message = "the endpoint's stream ended without an answer"
            answer.failure = Failure(type="invalid_response", message=message, fault="infrastructure")
        self.finish(answer)

    def reader_left(self) -> None:
        """The agent reads no more of the stream: its answer is what was seen, and ended with the last chunk."""
        if self._joiner is not None and self._is_followed and not self._done:
            self.finish(self._joiner.answer(), at=self._last_chunk_at)

    def _closed(self) -> None:
        """The response's body was closed: by its end, or by an agent that has read enough."""
        if self._is_followed:
            if not self.reading:
                self.reader_left()
        elif not self._done:
            self.finish(self._body_so_far())

    def _rollout_ended(self, failure: Failure | None) -> None:
        """An answer that the agent began to read and left is complete, as far as the agent is concerned; one that was
        being waited for when the rollout failed was cut off."""
        if self._joiner is None and self._watch is None:
            return
        followed = self._joiner if self._is_followed else None
        answer = followed.answer() if followed is not None else self._body_so_far()
        if failure is not None and self.reading:
            answer.failure = Failure(
                type="cancelled", message=f"the answer was being read when its rollout failed: {failure.type}"
            )
        self.finish(answer, at=self._last_chunk_at)

    def _body_so_far(self) -> Answer:
        """What a body says that the agent reads itself."""
        try:
            return self._watch.answer(self.operation) if self._watch is not None else Answer()
        except Exception as error:  # noqa: BLE001 - half a body, or none: nothing to read in it
            logger.debug("the body of a raw response could not be read: %s", error)
            return Answer()

    def returned(self, result: Any) -> None:
        """The client returns to the agent: with something parsed, which is recorded by now, or with a raw
        response that the agent will read itself."""
        if self._done or self._joiner is not None:
            return
        if not self.was_sent:
            self._answered_on_the_way(result)
            return
        try:
            response = getattr(result, "http_response", result)
            if not hasattr(response, "is_closed"):
                self.finish(Answer(failure=unreadable(result)))
            elif not response.is_closed:
                self._watch = BodyWatch(response, self._closed)
            elif hasattr(result, "parse"):
                # Parsed here once, and kept by the raw response for the agent.
                result.parse()
                self.finish(Answer())
            else:
                self.finish(answer_in(response, self.operation))
        except Exception as error:  # noqa: BLE001 - the agent will meet it where it reads the response
            self.fail(error)

    def _answered_on_the_way(self, result: Any) -> None:
        """Something that wraps the client has answered, a cache say, and nothing was sent: no policy wrote that."""
        self.span.attributes.pop(semconv.REDIRECTED, None)
        if self.span.generation is not None:
            self.span.generation.policy = self.span.generation.policy_version = None
        self.finish(read(result, self.operation) if hasattr(result, "model_extra") else Answer())

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The call has raised: what was seen of its answer is kept, with a typed failure."""
        if self._done:
            return
        answer = self._joiner.answer() if self._joiner is not None else Answer()
        try:
            # The client may have fetched a key since.
            remember_credentials(self._client, self.options)
            answer.failure = classify(error)
        except Exception:
            logger.exception("the failure of a model call could not be classified")
            answer.failure = failure_of(error)
        self.finish(answer)

    def finish(self, answer: Answer, *, at: float | None = None) -> None:
        """Writes the answer into the span and ends it, once, ``at`` that time or now."""
        if self._done:
            return
        self._done = True
        write_answer(self.recorder, self.span, self.operation, answer, retries=self.retries, at=at)
        self.recorder.end(self.span, answer.failure, at=at)
