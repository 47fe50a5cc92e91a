"""A solver with a calculator, and a teacher who tells the answer. They know nothing of who trains them."""

import operator

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@tool("calculator")
def calculator(expression: str) -> str:
    """Works out an arithmetic expression, such as 3 + 4."""
    left, operation, right = expression.split()
    return f"{OPERATIONS[operation](float(left), float(right)):.10g}"


llm = LLM(model="gpt-4o-mini", max_tokens=48)

solver = Agent(
    role="solver",
    goal="Find the number that is asked for.",
    backstory="You use the calculator, as in 3 + 4.",
    tools=[calculator],
    llm=llm,
    max_iter=4,
)
teacher = Agent(
    role="teacher",
    goal="Say the answer.",
    backstory="You say it in one short sentence.",
    llm=llm,
)

solve = Task(name="solve", description="{question}", expected_output="A number.", agent=solver)
tell = Task(
    name="tell",
    description="Say the answer to: {question}",
    expected_output="The answer is, and the number.",
    agent=teacher,
    context=[solve],
)
crew = Crew(name="homework", agents=[solver, teacher], tasks=[solve, tell])
