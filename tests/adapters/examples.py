"""The examples that train a few agents in each framework, and a model's answers with which one rollout is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stub_answers import Answer, text, tool_call

FOLDER = Path(__file__).parents[2] / "examples"
QUESTION = "Tom has 9 red pens and 2 blue pens. How many pens does he have?"

SOLVER_AND_TEACHER = {
    "solver": "Use the calculator, then say the number.",
    "teacher": "Say the answer in one short sentence.",
}
SOLVED_IN_TWO = [
    tool_call("calculator", id="call_1", expression="9 + 2 pens"),
    tool_call("calculator", id="call_2", expression="9 + 2"),
    text("11"),
    text("The answer is 11."),
]
"""The solver asks the calculator for something that it cannot do, then for something that it can; the teacher tells."""


@dataclass(frozen=True)
class Example:
    """``agent`` as its config names it, what has to be installed, what each agent's first message says,
    and what the model ``answers`` in the rollout that the README shows."""

    agent: str
    packages: tuple[str, ...]
    instructions: dict[str, str]
    answers: list[Answer]


EXAMPLES = {
    "autogen": Example(
        agent="agent:team",
        packages=("autogen_agentchat", "autogen_ext", "agentlightning_autogen"),
        instructions=SOLVER_AND_TEACHER,
        answers=SOLVED_IN_TWO,
    ),
    "crewai": Example(
        agent="agent:crew",
        packages=("crewai", "agentlightning_crewai"),
        instructions={"solver": "You are solver.", "teacher": "You are teacher."},
        answers=SOLVED_IN_TWO,
    ),
    "langchain": Example(
        agent="agent:homework",
        packages=("langchain_openai", "agentlightning_langgraph"),
        instructions={
            "writer": "Write what has to be worked out.",
            "teacher": SOLVER_AND_TEACHER["teacher"],
        },
        answers=[text("9 + 2 pens"), text("I do not know.")],
    ),
    "langgraph": Example(
        agent="agent:graph",
        packages=("langchain_openai", "agentlightning_langgraph"),
        instructions=SOLVER_AND_TEACHER,
        answers=SOLVED_IN_TWO,
    ),
    "openai": Example(
        agent="agent:solve",
        packages=("agentlightning_openai",),
        instructions={"solve": "Use the calculator, then say the answer."},
        answers=SOLVED_IN_TWO[:2] + SOLVED_IN_TWO[3:],
    ),
    "openai-agents": Example(
        agent="agent:solve",
        packages=("agents", "agentlightning_openai_agents"),
        instructions={"solver": "Use the calculator, then say the answer.", "checker": "Is the answer right?"},
        answers=[
            tool_call("calculator", id="call_1", expression="9 - 2"),
            text("The answer is 11."),
            text("No."),
            tool_call("calculator", id="call_2", expression="9 + 2 three"),
            text("The answer is 11."),
        ],
    ),
}
"""By the folder in ``examples``."""
