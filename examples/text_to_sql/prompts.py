"""What the model is told."""

SYSTEM = "Write one SQLite query that answers the question. Reply with the query only."


def ask(schema: str, question: str) -> str:
    """The tables, a line for each, and the question under them."""
    return f"{schema}\n\n{question}"


def ask_again(problem: str) -> str:
    """What is wrong with the last query."""
    return f"That query is wrong: {problem}. Write another one."
