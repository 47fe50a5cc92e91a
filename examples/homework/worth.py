"""What the homework is worth, and how far the pupil had come."""

from agent import work_out


def right(rollout, task, spans):
    """The outcome: the first problem, which the teacher looks at, is right."""
    return rollout.output["results"][0] == task.expected


def first_right(rollout, task, span):
    """Progress: the first problem was answered, and right, when the call was made."""
    said = [message["content"] for message in span.generation.messages if message["role"] == "assistant"]
    return len(said) > 3 and work_out(said[3]) == task.expected
