"""Arithmetic out of text that a model wrote: numbers, + - * / **, parentheses, and nothing else."""

import ast
import operator
import re

LONGEST = 200
"""Characters of an expression: what is nested deeper than Python parses does not fit in."""
LARGEST = 10**15
"""The absolute value of every number on the way; up to here a float counts whole numbers exactly."""
HIGHEST_POWER = 64
TOO_LARGE = f"expected real numbers of at most {LARGEST:,}"

WRITTEN = re.compile(r"[0-9.+\-*/() ]+")
THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def calculate(expression: str) -> str:
    """The value of an expression, as text; ``1,000 / 3`` is 333.3333333.

    Raises `ValueError`, which says what was wrong, for whatever is not arithmetic, has no value or a huge one.
    """
    text = THOUSANDS.sub("", expression[: LONGEST + 1]).strip()
    if len(expression) > LONGEST or not WRITTEN.fullmatch(text):
        raise ValueError(f"expected at most {LONGEST} characters of numbers, + - * / ** and parentheses")
    try:
        value = evaluate(ast.parse(text, mode="eval").body)
    except SyntaxError:
        raise ValueError("this is no arithmetic expression") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except OverflowError:
        raise ValueError(TOO_LARGE) from None
    return as_text(value)


def evaluate(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return checked(value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            one, other = evaluate(left), evaluate(right)
            if isinstance(op, ast.Pow) and abs(other) > HIGHEST_POWER:
                raise ValueError(f"expected a power of at most {HIGHEST_POWER}")
            return checked(OPERATORS[type(op)](one, other))
    raise ValueError("this is no arithmetic expression")


def checked(value: complex) -> int | float:
    if isinstance(value, complex) or not abs(value) <= LARGEST:
        raise ValueError(TOO_LARGE)
    return value


def as_text(value: int | float) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) else f"{value:.10g}"
