"""A writer of expressions, a calculator and a teacher, as chains. They know nothing of who trains them."""

import ast
import operator
from operator import itemgetter

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

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


@tool
def calculator(expression: str) -> str:
    """Works out an arithmetic expression."""
    return f"{evaluate(ast.parse(expression.strip(), mode='eval')):.10g}"


def no_result(expression: str) -> str:
    return "not known"


WRITER = ChatPromptTemplate.from_messages(
    [
        ("system", "Write what has to be worked out."),
        ("user", "Tom has 3 red pens and 4 blue pens. How many pens does he have?"),
        ("ai", "3 + 4"),
        ("user", "A box holds 6 eggs. How many eggs are in 5 boxes?"),
        ("ai", "6 * 5"),
        ("user", "Sue had 9 balls and gave 2 to Max. How many balls does Sue still have?"),
        ("ai", "9 - 2"),
        ("user", "{question}"),
    ]
)
TEACHER = ChatPromptTemplate.from_messages(
    [
        ("system", "Say the answer in one short sentence."),
        ("user", "Tom has 3 red pens and 4 blue pens. How many pens does he have? 7"),
        ("ai", "Tom has 7 pens."),
        ("user", "A box holds 6 eggs. How many eggs are in 5 boxes? 30"),
        ("ai", "There are 30 eggs."),
        ("user", "{question} {result}"),
    ]
)

model = ChatOpenAI(model="gpt-4o-mini", max_tokens=48)
writer = (WRITER | model | StrOutputParser()).with_config(run_name="writer")
teacher = (TEACHER | model | StrOutputParser()).with_config(run_name="teacher")
careful = calculator.with_fallbacks([RunnableLambda(no_result)])
homework = (
    {"question": RunnablePassthrough()}
    | RunnablePassthrough.assign(expression=writer)
    | RunnablePassthrough.assign(result=itemgetter("expression") | careful)
    | teacher
).with_config(run_name="homework")
