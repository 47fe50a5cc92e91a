"""A solver with a calculator, and a teacher who tells the answer. They know nothing of who trains them."""

import ast
import operator

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def evaluate(node: ast.AST) -> float:
    match node:
        case ast.Expression(body=body):
            return evaluate(body)
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(left), evaluate(right))
    raise ValueError("only numbers and + - * / are understood")


@tool("calculator")
def calculator(expression: str) -> str:
    """Works out an arithmetic expression."""
    return f"{evaluate(ast.parse(expression.strip(), mode='eval')):.10g}"


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
