"""A writer of expressions, a calculator and a teacher, as chains. They know nothing of who trains them."""

import operator

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@tool
def calculator(expression: str) -> str:
    """Works out an arithmetic expression, such as 3 + 4."""
    left, operation, right = expression.split()
    return f"{OPERATIONS[operation](float(left), float(right)):.10g}"


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
    | RunnablePassthrough.assign(result=operator.itemgetter("expression") | careful)
    | teacher
).with_config(run_name="homework")
