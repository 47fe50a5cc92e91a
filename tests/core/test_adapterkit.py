"""What adapters share: where the code that runs here belongs, one call = one span, attributes, failures, plain data."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
from dataclasses import dataclass
from enum import Enum

import pytest
from pydantic import BaseModel, Field
from recorded import record

from agentlightning import semconv
from agentlightning.adapterkit.attributes import parse_arguments, tool_attributes
from agentlightning.adapterkit.failures import failure_of_call, type_of_status
from agentlightning.adapterkit.listening import listen
from agentlightning.adapterkit.serialize import plain
from agentlightning.adapterkit.span_stack import Frame, SpanStack
from agentlightning.adapterkit.typechecks import is_a
from agentlightning.recording import annotate, locate, span


@pytest.fixture
def stack():
    stack = SpanStack("test")
    stack.install()
    yield stack
    stack.uninstall()


def outline(recorded):
    return [line.removesuffix(" [None]") for line in recorded.outline()]


def begin(stack, recorder, name, kind="agent"):
    """A frame with a span of its own, which runs here."""
    parent = stack.innermost(recorder)
    base = locate(recorder)
    frame = Frame(recorder, parent, base, recorder.start(kind, name, parent=base))
    stack.push(frame)
    return frame


def end(stack, frame):
    frame.ended = True
    frame.recorder.end(frame.span)
    return stack.pop(frame)


def test_what_happens_hangs_under_the_innermost_frame(stack):
    with record() as recorded:
        crew = begin(stack, recorded.recorder, "crew")
        annotate("before")
        agent = begin(stack, recorded.recorder, "agent")
        annotate("inside")
        end(stack, agent)
        annotate("after")
        end(stack, crew)
    assert outline(recorded) == [
        "agent crew",
        "  annotation before",
        "  agent agent",
        "    annotation inside",
        "  annotation after",
    ]


def test_a_span_that_was_opened_by_hand_in_a_frame_is_further_in_and_one_around_it_is_not(stack):
    with record() as recorded, span("around"):
        crew = begin(stack, recorded.recorder, "crew")
        annotate("in the crew")
        with span("by hand"):
            annotate("by hand")
        end(stack, crew)
    assert outline(recorded) == [
        "agent around",
        "  agent crew",
        "    annotation in the crew",
        "    agent by hand",
        "      annotation by hand",
    ]


async def test_tasks_see_their_own_frames(stack):
    with record() as recorded:
        crew = begin(stack, recorded.recorder, "crew")

        async def work(name):
            frame = begin(stack, recorded.recorder, name)
            await asyncio.sleep(0)
            annotate(f"in {name}")
            end(stack, frame)

        await asyncio.gather(work("one"), work("two"))
        end(stack, crew)
    assert outline(recorded) == [
        "agent crew",
        "  agent one",
        "  agent two",
        "    annotation in one",
        "    annotation in two",
    ]


def test_who_still_has_the_context_of_a_frame_that_ended_is_in_the_one_around_it(stack):
    with record() as recorded:
        crew = begin(stack, recorded.recorder, "crew")
        agent = begin(stack, recorded.recorder, "agent")
        late = threading.Thread(target=contextvars.copy_context().run, args=(annotate, "late"))
        end(stack, agent)
        late.start()
        late.join()
        end(stack, crew)
    assert outline(recorded) == ["agent crew", "  agent agent", "  annotation late"]


def test_frames_that_nobody_popped_are_returned_with_the_one_they_are_in(stack):
    with record() as recorded:
        crew = begin(stack, recorded.recorder, "crew")
        forgotten = [begin(stack, recorded.recorder, "agent"), begin(stack, recorded.recorder, "tool", "tool")]
        assert end(stack, crew) == forgotten[::-1]
        assert stack.innermost(recorded.recorder) is None


def test_a_frame_that_was_pushed_elsewhere_is_popped_nowhere_else(stack):
    with record() as recorded:
        crew = begin(stack, recorded.recorder, "crew")
        agent = contextvars.copy_context().run(begin, stack, recorded.recorder, "agent")
        assert end(stack, agent) == []
        assert stack.innermost(recorded.recorder) is crew


def test_the_framework_itself_may_say_what_runs_and_the_innermost_counts():
    found = []
    stack = SpanStack("test", find=lambda recorder: found[0] if found else None)
    with record() as recorded:
        graph = begin(stack, recorded.recorder, "graph")
        node = Frame(recorded.recorder, graph, graph.span, recorded.recorder.start("agent", "node"))
        found.append(node)
        assert stack.innermost(recorded.recorder) is node
        tool = begin(stack, recorded.recorder, "tool", "tool")
        assert tool.parent is node
        assert stack.innermost(recorded.recorder) is tool
        found.clear()
        assert stack.innermost(recorded.recorder) is tool
        found.append(graph)
        tool.ended = True  # and was not popped
        assert stack.innermost(recorded.recorder) is graph


def test_a_tentative_span_is_written_only_if_something_begins_in_it(stack):
    with record() as recorded:
        recorder = recorded.recorder
        idle = recorder.start("agent", "idle", tentative=True)
        around = recorder.start("agent", "around", tentative=True)
        busy = recorder.start("agent", "busy", parent=around, tentative=True)
        assert [recorder.is_tentative(span) for span in (idle, busy)] == [True, True]
        recorder.end(recorder.start("tool", "tool", parent=busy))
        assert [recorder.is_tentative(span) for span in (idle, busy)] == [True, False]
        for begun in (busy, around, idle):
            recorder.end(begun)
        recorder.end(recorder.start("tool", "late", parent=idle))
    assert outline(recorded) == ["agent around", "  agent busy", "    tool tool", "tool late"]


def test_an_expected_call_is_taken_once():
    with record() as recorded:
        recorder = recorded.recorder
        expected = recorder.start("llm", "ChatModel")
        recorder.expect_call(expected)
        assert recorder.start_call("chat tiny", parent=expected) is expected
        assert expected.name == "chat tiny"
        assert recorder.take_expected_call(expected) is None
        second = recorder.start_call("chat tiny", parent=expected)
        assert second.parent_id == expected.id
        recorder.end(second)
        recorder.end(expected)
    assert len(recorded.spans) == 2


def test_what_is_noted_where_a_call_is_expected_takes_no_call(stack):
    """A model of somebody's own that annotates before it asks its endpoint."""
    with record() as recorded:
        call = begin(stack, recorded.recorder, "chat", "llm")
        recorded.recorder.expect_call(call.span)
        annotate("thinking")
        assert recorded.recorder.expects_call(call.span)
        with span("by hand"):
            assert locate(recorded.recorder) is call.span
        assert recorded.recorder.take_expected_call(call.span) is call.span
        end(stack, call)
    assert outline(recorded) == ["llm chat", "  annotation thinking", "  agent by hand"]


def test_a_tool_says_what_is_known_of_it():
    assert tool_attributes("add", arguments={"a": 1}) == {
        semconv.OPERATION_NAME: "execute_tool",
        semconv.TOOL_NAME: "add",
        semconv.TOOL_TYPE: "function",
        semconv.TOOL_CALL_ARGUMENTS: {"a": 1},
    }
    assert tool_attributes("add", "call_1")[semconv.TOOL_CALL_ID] == "call_1"


@pytest.mark.parametrize(
    ("given", "parsed"), [('{"a": 1}', {"a": 1}), ("{a", "{a"), ({"a": 1}, {"a": 1}), (None, None)]
)
def test_arguments_are_parsed_where_they_are_json(given, parsed):
    assert parse_arguments(given) == parsed


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (400, "This model's maximum context length is 8192 tokens", ("context_too_long", "agent")),
        (400, "no such parameter", ("bad_request", "agent")),
        (401, "", ("authentication_failed", "infrastructure")),
        (403, "", ("authentication_failed", "infrastructure")),
        (404, "", ("not_found", "infrastructure")),
        (408, "", ("timeout", "infrastructure")),
        (409, "", ("engine_unavailable", "infrastructure")),
        (413, "", ("context_too_long", "agent")),
        (422, "", ("bad_request", "agent")),
        (429, "too many tokens per minute", ("rate_limited", "infrastructure")),
        (429, "slow down", ("rate_limited", "infrastructure")),
        (500, "context window", ("engine_unavailable", "infrastructure")),
        (529, "overloaded", ("engine_unavailable", "infrastructure")),
    ],
)
def test_a_status_is_a_failure_of_somebody(status, text, expected):
    assert type_of_status(status, text) == expected


class WithStatusError(Exception):
    def __init__(self, status):
        self.status_code = status


class OfHttpxError(Exception):
    __module__ = "httpx"


class ReadTimeoutError(OfHttpxError):
    __module__ = "httpx"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (WithStatusError(429), ("rate_limited", "infrastructure")),
        (TimeoutError(), ("timeout", "infrastructure")),
        (ReadTimeoutError(), ("timeout", "infrastructure")),
        (OfHttpxError(), ("engine_unavailable", "infrastructure")),
        (ConnectionResetError(), ("engine_unavailable", "infrastructure")),
        (ValueError("no"), ("agent_error", "agent")),
    ],
)
def test_an_exception_of_any_client_is_a_failure_of_somebody(error, expected):
    failure = failure_of_call(error)
    assert (failure.type, failure.fault) == expected


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    at: object


class Model(BaseModel, extra="allow"):
    point: object
    secret: str = Field(default="", exclude=True)


def test_values_become_plain_data():
    other = object()
    value = {1: (Colour.RED, {2}), "model": Model(point=Point(1, other), more=[Colour.RED])}
    assert plain(value) == {"1": ["red", [2]], "model": {"point": {"x": 1, "at": other}, "more": ["red"]}}


def test_what_an_adapter_knows_better_it_converts_itself():
    assert plain([Point(1, 2)], lambda value: f"{value.x}, {value.at}") == ["1, 2"]


def test_a_class_of_a_module_that_is_not_imported_has_no_instances():
    assert is_a(Point(1, 2), __name__, "Point")
    assert not is_a(Point(1, 2), "no.such.module", "Point")
    assert not is_a(Point(1, 2), __name__, "pytest")


def test_what_a_server_answers_in_two_parts_waits_for_no_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
