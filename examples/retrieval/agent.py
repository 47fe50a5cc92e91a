"""An agent of the OpenAI Agents SDK that answers from a library of passages, and cites them."""

import asyncio
import os
import sys
from pathlib import Path

from agents import Agent, MaxTurnsExceeded, ModelBehaviorError, ModelSettings, Runner, function_tool
from search import Library

HERE = Path(__file__).parent


def open_library() -> Library:
    """The passages that ``tasks.py`` wrote; searched by meaning, too, where EMBEDDINGS names a model for it."""
    embed = None
    if name := os.environ.get("EMBEDDINGS"):
        from embeddings import MiniLM

        embed = MiniLM(name)
    return Library.load(HERE / "data" / "passages.jsonl", embed)


library = open_library()


@function_tool
def search(query: str) -> str:
    """Finds passages."""
    return "\n".join(str(passage) for passage in library.search(query))


librarian = Agent(
    name="librarian",
    instructions="Search, again if need be. Then answer in a few words and cite the passages, as in: Paris [3] [8]",
    tools=[search],
    model="gpt-4o-mini",
    model_settings=ModelSettings(max_tokens=64),
)


async def answer(question: str) -> str:
    """The answer with its citations; empty where it searched for too long, or its model said what is no answer."""
    try:
        result = await Runner.run(librarian, question, max_turns=5)
    except (MaxTurnsExceeded, ModelBehaviorError):
        return ""
    return result.final_output


if __name__ == "__main__":
    print(asyncio.run(answer(" ".join(sys.argv[1:]))))
