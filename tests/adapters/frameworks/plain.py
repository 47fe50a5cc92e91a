"""No framework: functions that use the ``openai`` client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from adapters.framework import KEY, MODEL, add

NO_TOOLS = "a function tells nobody of the tools that it runs; the next model call has their results as messages"
ONE_NAME = (
    "the functions that an agent calls are not seen; all model calls go by its own name, but in `agl.span(…, agent=…)`"
)

PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": add.__doc__, "parameters": PARAMETERS, "strict": True},
}


class Plain:
    adapter = "function"
    packages = ("openai",)
    api = "chat"
    gaps = {
        "a_tool_with_its_arguments_and_result": NO_TOOLS,
        "a_tool_call_has_its_id": NO_TOOLS,
        "a_tool_that_raises": NO_TOOLS,
        "the_type_of_a_tools_exception": NO_TOOLS,
        "tools_called_at_once": NO_TOOLS,
        "a_hand_over_between_two_agents": ONE_NAME,
        "a_team_in_a_team": ONE_NAME,
        "only_one_of_two_agents_is_trained": ONE_NAME,
    }

    def solver(self, base_url: str) -> Any:
        completions = self._client(base_url).chat.completions

        async def ask(messages: list[Any]) -> Any:
            return await completions.create(model=MODEL, messages=messages, tools=[TOOL])

        return self._solver(ask)

    def streaming(self, base_url: str) -> Any:
        completions = self._client(base_url).chat.completions

        async def ask(messages: list[Any]) -> Any:
            async with completions.stream(model=MODEL, messages=messages, tools=[TOOL]) as stream:
                return await stream.get_final_completion()

        return self._solver(ask)

    def _solver(self, ask: Callable[[list[Any]], Any]) -> Any:
        async def solver(question: str) -> str:
            messages: list[Any] = [{"role": "user", "content": question}]
            while True:
                said = (await ask(messages)).choices[0].message
                if not said.tool_calls:
                    return said.content
                messages.append(said.to_dict())
                for call in said.tool_calls:
                    result = str(add(**json.loads(call.function.arguments)))
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

        return solver

    def handover(self, base_url: str) -> Any:
        async def triage(question: str) -> str:
            return f"The expert answers: {await expert(question)}"

        async def expert(question: str) -> str:
            return await self._ask(base_url, question)

        return triage

    def team(self, base_url: str) -> Any:
        async def writer(question: str) -> str:
            return await self._ask(base_url, question)

        async def critic(draft: str) -> str:
            await self._ask(base_url, f"Is it right? {draft}")
            return draft

        async def team(question: str) -> str:
            return await critic(await writer(question))

        return team

    async def _ask(self, base_url: str, question: str) -> str:
        messages: list[Any] = [{"role": "user", "content": question}]
        completion = await self._client(base_url).chat.completions.create(model=MODEL, messages=messages)
        return completion.choices[0].message.content

    def _client(self, base_url: str) -> Any:
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=2)


framework = Plain()
