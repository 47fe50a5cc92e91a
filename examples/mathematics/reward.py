"""What a calculation was worth, by the solution that the problem came with. The answer itself is `numeric_match`'s."""

from collections import Counter

from agentlightning import Reward


def calculations(rollout, task, spans):
    """A reward for each calculation: whether the solution has its result, each of them once, in any order; one that
    failed has none. It belongs to the answer that called the calculator."""
    missing = Counter(map(float, task.metadata["results"]))
    rewards = []
    for span in sorted((span for span in spans if span.kind == "tool"), key=lambda span: span.index):
        value = 1 if take(missing, span.attributes.get("gen_ai.tool.call.result")) else -1
        rewards.append(Reward(name="calculations", value=value, weight=0.1, span_id=span.id))
    return rewards


def found(rollout, task, span):
    """Progress: the share of the solution's results that the calculator had given when the call was made."""
    missing = Counter(map(float, task.metadata["results"]))
    given = [message["content"] for message in span.generation.messages if message["role"] == "tool"]
    return sum(take(missing, result) for result in given) / len(task.metadata["results"])


def take(missing: Counter[float], result: object) -> bool:
    """Takes a result from those that are missing; whether it was among them."""
    try:
        value = float(str(result))
    except ValueError:
        return False
    if missing[value] == 0:
        return False
    missing[value] -= 1
    return True
