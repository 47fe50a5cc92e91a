"""What each role's call was worth, and the credit that tells its policy so."""

from agentlightning import Reward
from agentlightning.credit import Credit


def worth(rollout, task, spans):
    """The outcome: the right number of the right things. The planner's call: whether its calculation gives that number.
    The writer's: whether it says the number that it was given, and the right things."""
    state = rollout.output or {}
    result, answer = state.get("result", ""), state.get("answer", "")
    planned = result == task.expected["number"]
    written = answer.strip().rstrip(".").lower() == f"{result} {task.expected['things']}"
    calls = {span.agent: span.id for span in spans if span.kind == "llm"}
    steps = {"planner": planned, "writer": written}
    return [
        Reward(name="answer", value=planned and written),
        *(Reward(name=role, value=right, span_id=calls[role]) for role, right in steps.items() if role in calls),
    ]


class OwnReward(Credit):
    """The advantage of a call is its own reward, less the mean of its group's: a policy sees its own calls alone."""

    def assign(self, groups):
        for group in groups:
            calls = [call for member in group.rollouts for call in member.transitions]
            mean = sum(transition.reward or 0.0 for _, transition in calls) / max(len(calls), 1)
            for row, transition in calls:
                row.set_advantage(transition, (transition.reward or 0.0) - mean)
