"""``POST /v1/responses``: items in, items out, over the same chat.

The API has no place for token ids: with ``return_token_ids`` the response carries ``prompt_token_ids`` and
``token_ids`` at its top level, and with ``logprobs`` (which is not of the API either) one number a token. In a stream
the first event has the former and each delta its tokens, for whoever reads no further.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import msgspec

from agentlightning_gateway.completions import Completions, Generation, RequestHandle, event
from agentlightning_gateway.fields import check_constraint
from agentlightning_gateway.protocol import (
    ApiError,
    Function,
    GenerationRequest,
    Message,
    Part,
    SamplingFields,
    ToolCall,
    sampling_options,
)
from agentlightning_gateway.requests import check_format, check_tools, decode
from agentlightning_gateway.sessions import Prompt

TEXT_PARTS = ("input_text", "output_text", "text")


class Item(msgspec.Struct):
    """One item of the input. Which fields it has depends on ``type``."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None


class TextOptions(msgspec.Struct):
    """What the text is to look like."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct):
    """How much the model is to think; summaries of it are shown to nobody."""

    effort: str | None = None


class ResponsesRequest(SamplingFields, kw_only=True):
    """The body of a request."""

    input: str | list[Item] = ""
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    text: TextOptions | None = None
    logprobs: bool | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def generation_request(self) -> GenerationRequest:
        """Raises `ApiError` for what the engine does not do."""
        unconstrained = bool(self.unconstrained)
        text = self.text or TextOptions()
        if text.verbosity not in (None, "medium"):
            check_constraint("text.verbosity", unconstrained=unconstrained)
        for index, tool in enumerate(self.tools or []):
            if tool.get("type") != "function":
                where = f"tools[{index}]"
                raise ApiError(400, f"{where}: only functions can be offered, not {tool.get('type')!r}", param=where)
        tools = [
            {"type": "function", "function": {name: tool[name] for name in tool if name != "type"}}
            for tool in self.tools or []
        ]
        check_tools(tools, self.tool_choice, unconstrained=unconstrained)
        check_format(text.format, "text.format", unconstrained=unconstrained)
        effort = self.reasoning.effort if self.reasoning else None
        return GenerationRequest(
            **sampling_options(self),
            max_tokens=self.max_output_tokens,
            top_logprobs=0 if self.logprobs else None,
            tools=tools or None,
            calls_tools=self.tool_choice != "none",
            parallel_calls=self.parallel_tool_calls is not False,
            template={**({} if effort is None else {"reasoning_effort": effort}), **(self.chat_template_kwargs or {})},
        )

    def messages(self) -> list[Message]:
        """The input as a chat. Raises `ApiError` for an item that is no part of one."""
        messages = [Message(role="system", content=self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*messages, Message(role="user", content=self.input)]
        for index, item in enumerate(self.input):
            _add(messages, item, f"input[{index}]")
        if not messages:
            raise ApiError(400, "input: expected at least one item", param="input")
        return messages


def _add(messages: list[Message], item: Item, where: str) -> None:
    """An item, as a message or as a part of the one before: an answer's text and its calls are one message."""
    if item.type == "message" and item.role is not None:
        messages.append(Message(role=item.role, content=_text(item.content, f"{where}.content")))
    elif item.type == "function_call" and item.call_id is not None and item.name is not None:
        if not messages or messages[-1].role != "assistant":
            messages.append(Message(role="assistant"))
        call = ToolCall(id=item.call_id, function=Function(item.name, item.arguments or "{}"))
        messages[-1].tool_calls = [*(messages[-1].tool_calls or []), call]
    elif item.type == "function_call_output" and item.call_id is not None:
        output = _text(item.output, f"{where}.output")
        messages.append(Message(role="tool", content=output, tool_call_id=item.call_id))
    elif item.type != "reasoning":
        raise ApiError(400, f"{where}: an item of type {item.type!r} is not supported here", param=where)


def _text(content: str | list[Part] | None, where: str) -> str:
    if not isinstance(content, list):
        return content or ""
    odd = [part.type for part in content if part.type not in TEXT_PARTS]
    if odd:
        raise ApiError(400, f"{where}: a part of type {odd[0]!r} is not supported, only text", param=where)
    return "".join(part.text or "" for part in content)


class ResponsesApi:
    """Responses, whole and streamed."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions

    def read(self, data: bytes, rollout: str | None) -> tuple[ResponsesRequest, GenerationRequest, list[Prompt]]:
        """The request and its prompt. Raises `ApiError`."""
        body = decode(data, ResponsesRequest, self._completions.info.name)
        request = body.generation_request()
        return body, request, [self._completions.chat_prompt(request, body.messages(), rollout)]

    def whole(self, body: ResponsesRequest, handle: RequestHandle) -> dict[str, Any]:
        """The response, once it is complete. Safe to call from any thread."""
        return self._finished(body, handle, _items(self._completions.message(handle.generations[0]), handle.key))

    async def chunks(self, body: ResponsesRequest, handle: RequestHandle) -> AsyncIterator[bytes]:
        """The response as server-sent events. An error after the first event ends it as failed."""
        generation = handle.generations[0]
        events = _Events(self._completions, generation)
        empty = {**self._head(body, handle), "status": "in_progress", "output": []}
        prompt = {"prompt_token_ids": generation.prompt.ids.tolist()} if handle.request.return_token_ids else {}
        yield events.make("response.created", response={**empty, **prompt})
        yield events.make("response.in_progress", response=empty)
        writer = _TextWriter(events, f"msg_{handle.key}")
        detokenizer = self._completions.detokenizer(generation)
        try:
            async for _ in handle.steps():
                done = generation.done
                if generation.new_tokens() and not done:
                    for part in writer.push(detokenizer.push(generation.ids[: generation.sent])):
                        yield part
        except ApiError as error:
            failure = {"code": "server_error", "message": str(error)}
            yield events.make("response.failed", response={**empty, "status": "failed", "error": failure})
            return
        items = _items(self._completions.message(generation), handle.key)
        for index, item in enumerate(items):
            for part in writer.close(item) if item["type"] == "message" else _call_events(events, index, item):
                yield part
        response = self._finished(body, handle, items)
        yield events.make(f"response.{response['status']}", response=response)

    def _finished(self, body: ResponsesRequest, handle: RequestHandle, items: list[dict[str, Any]]) -> dict[str, Any]:
        generation = handle.generations[0]
        cut = generation.finish == "length"
        response = {
            **self._head(body, handle),
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": items,
            "usage": _usage(handle),
        }
        return {**response, **_tokens(generation)}

    def _head(self, body: ResponsesRequest, handle: RequestHandle) -> dict[str, Any]:
        return {
            "id": f"resp_{handle.key}",
            "object": "response",
            "created_at": handle.created,
            **self._completions.identity(handle),
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "metadata": {},
            "parallel_tool_calls": handle.request.parallel_calls,
            "temperature": handle.request.temperature,
            "top_p": handle.request.top_p,
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "usage": None,
        }


class _Events:
    """Numbers the events of one stream. Each delta has the tokens that were drawn since the one before."""

    def __init__(self, completions: Completions, generation: Generation) -> None:
        self._completions = completions
        self._generation = generation
        self._count = 0
        self._sent = 0

    def make(self, kind: str, **fields: Any) -> bytes:
        self._count += 1
        return event({"type": kind, "sequence_number": self._count - 1, **fields}, kind)

    def delta(self, kind: str, **fields: Any) -> bytes:
        generation = self._generation
        tokens = generation.tokens[self._sent : generation.sent]
        self._sent = generation.sent
        if generation.request.return_token_ids:
            fields["token_ids"] = [token.id for token in tokens]
        if generation.request.top_logprobs is not None:
            fields["logprobs"] = [
                {"token": self._completions.token_text(token.id), "logprob": token.logprob, "top_logprobs": []}
                for token in tokens
            ]
        return self.make(kind, **fields)


class _TextWriter:
    """The events of the message item, the first of an answer that has one."""

    def __init__(self, events: _Events, id: str) -> None:
        self._events = events
        self._position = {"output_index": 0, "item_id": id, "content_index": 0}
        self._shown = 0
        self._open = False

    def push(self, text: str) -> Iterator[bytes]:
        if not text:
            return
        yield from self._opened()
        self._shown += len(text)
        yield self._events.delta("response.output_text.delta", **self._position, delta=text, logprobs=[])

    def close(self, item: dict[str, Any]) -> Iterator[bytes]:
        part = item["content"][0]
        yield from self._opened()
        yield from self.push(part["text"][self._shown :])
        yield self._events.make("response.output_text.done", **self._position, text=part["text"], logprobs=[])
        yield self._events.make("response.content_part.done", **self._position, part=part)
        yield self._events.make("response.output_item.done", output_index=0, item=item)

    def _opened(self) -> Iterator[bytes]:
        if self._open:
            return
        self._open = True
        item = _message(self._position["item_id"], "", "in_progress")
        yield self._events.make("response.output_item.added", output_index=0, item={**item, "content": []})
        yield self._events.make("response.content_part.added", **self._position, part=item["content"][0])


def _call_events(events: _Events, index: int, item: dict[str, Any]) -> Iterator[bytes]:
    begun = {**item, "arguments": "", "status": "in_progress"}
    where = {"output_index": index, "item_id": item["id"]}
    yield events.make("response.output_item.added", output_index=index, item=begun)
    yield events.delta("response.function_call_arguments.delta", **where, delta=item["arguments"])
    done = {"name": item["name"], "arguments": item["arguments"]}
    yield events.make("response.function_call_arguments.done", **where, **done)
    yield events.make("response.output_item.done", output_index=index, item=item)


def _items(message: Message, key: str) -> list[dict[str, Any]]:
    calls = [
        {
            "id": f"fc_{call.id.removeprefix('call_')}",
            "type": "function_call",
            "call_id": call.id,
            "name": call.function.name,
            "arguments": call.function.arguments,
            "status": "completed",
        }
        for call in message.tool_calls or []
    ]
    text = [_message(f"msg_{key}", message.text, "completed")] if message.text or not calls else []
    return [*text, *calls]


def _message(id: Any, text: str, status: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": id, "type": "message", "role": "assistant", "status": status, "content": content}


def _tokens(generation: Generation) -> dict[str, Any]:
    tokens: dict[str, Any] = {}
    if generation.request.return_token_ids:
        tokens = {"prompt_token_ids": generation.prompt.ids.tolist(), "token_ids": generation.ids}
    if generation.request.top_logprobs is not None:
        tokens["logprobs"] = [token.logprob for token in generation.tokens]
    return tokens


def _usage(handle: RequestHandle) -> dict[str, Any]:
    read, written = handle.tokens
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }
