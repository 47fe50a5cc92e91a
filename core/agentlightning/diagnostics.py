"""Signs that nothing is learned: counted while rollouts end, logged with each step, and put in plain words."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentlightning import semconv
from agentlightning.algorithm import Evaluation
from agentlightning.recording.repeating import DIVERGED, is_exact
from agentlightning.records import Generation, Rollout, Span
from agentlightning.store.base import Metric
from agentlightning.training_rows import Group

CUT_OFF = frozenset({"length", "max_tokens"})
"""Finish reasons of an answer that was not at its end."""
CALL_IN_TEXT = re.compile(
    r"<tool_call>|<function=|<function_call>|\[TOOL_CALLS\]|<\|python_tag\|>|<\|tool_call"
    r"|^\s*+(?:```(?:json)?\s*+)?\[?\s*+\{\s*\"name\"\s*:\s*\"[^\"]*\"\s*,\s*\"(?:arguments|parameters)\""
)
"""How models begin a tool call: where an answer's text holds one, nobody could read it as a call."""
THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)

ENOUGH_TASKS = 20
"""With fewer held-out tasks a difference between before and after says nothing."""
ANSWERED_BY_A_CACHE = (
    "is there a cache of answers in the agent (set_llm_cache of LangChain, functools.cache)? Switch it off for training"
)
MANY_CUT_OFF = 0.2
MANY_MALFORMED = 0.2
MANY_WITHOUT_SPREAD = 0.5


class Counts:
    """What ended since the last step was logged. ``answers`` are those of the policy where there is one, else all."""

    def __init__(self) -> None:
        self._rewards: list[float] = []
        self._groups = self._without_spread = self._without_calls = 0
        self._answers = self._cut_off = self._offered = self._calls = self._malformed = 0
        self._limits: Counter[int] = Counter()
        self._of_rewards: dict[str, float] = {}

    def add(self, rollout: Rollout, spans: Iterable[Span], *, only_policy: bool) -> None:
        """Counts a rollout that has ended."""
        if rollout.is_trainable and rollout.total_reward is not None:
            self._rewards.append(rollout.total_reward)
        for reward in rollout.rewards:
            for name, number in reward.metrics.items():
                key = f"{reward.name}/{name}"
                self._of_rewards[key] = self._of_rewards.get(key, 0.0) + number
        for span in spans:
            answer = span.generation
            if answer is not None and answer.response is not None and (answer.policy is not None or not only_policy):
                self._add_answer(answer, span.attributes.get(semconv.REQUEST_MAX_TOKENS))

    def add_group(self, group: Group) -> None:
        """Counts a group; one of a single rollout compares nothing, and is none."""
        if len(group.all_rollouts) < 2:
            return
        self._groups += 1
        self._without_calls += len(group.without_calls)
        self._without_spread += len({member.rollout.total_reward for member in group.rollouts}) < 2

    def metrics(self) -> dict[str, float]:
        """The counts, and shares of them, by name: only what there was any of."""
        found = dict(self._of_rewards)
        if self._rewards:
            found |= {"rollouts": len(self._rewards)}
            found |= {"reward_min": min(self._rewards), "reward_max": max(self._rewards)}
        if self._rewards and self._without_calls:
            found["rollouts_without_calls"] = self._without_calls / len(self._rewards)
        if self._groups:
            found |= {"groups": self._groups, "groups_without_spread": self._without_spread / self._groups}
        if self._answers:
            found |= {"answers": self._answers, "answers_cut_off": self._cut_off / self._answers}
        if self._limits:
            found["answers_cut_off_at"] = self._limits.most_common(1)[0][0]
        if self._offered:
            found |= {"answers_with_tools": self._offered, "tool_calls": self._calls}
        if self._calls:
            found["tool_calls_malformed"] = self._malformed / self._calls
        return found

    def _add_answer(self, answer: Generation, limit: Any) -> None:
        self._answers += 1
        if answer.finish_reason in CUT_OFF:
            self._cut_off += 1
            if isinstance(limit, int):
                self._limits[limit] += 1
        made = (answer.response or {}).get("tool_calls") or []
        if not answer.tools and not made:
            return
        self._offered += 1
        malformed = sum(not is_well_formed(call) for call in made)
        if holds_unread_call(answer):
            malformed += 1
            self._calls += 1
        self._calls += len(made)
        self._malformed += malformed


class BranchCounts:
    """What rollouts that repeat others cost since the last step was logged."""

    def __init__(self) -> None:
        self._rollouts = self._diverged = self._repeated = self._sampled = 0

    def add(self, rollout: Rollout, spans: Iterable[Span]) -> None:
        """Counts one that has ended."""
        self._rollouts += 1
        self._diverged += rollout.failure is not None and rollout.failure.type == DIVERGED
        answered = [span for span in spans if is_exact(span)]
        repeated = sum(semconv.REPLAYED in span.attributes for span in answered)
        self._repeated += repeated
        self._sampled += len(answered) - repeated

    def metrics(self) -> dict[str, float]:
        """The counts by name; none where nothing was repeated."""
        if not self._rollouts:
            return {}
        return {
            "branches": self._rollouts,
            "branches_diverged": self._diverged,
            "calls_repeated": self._repeated,
            "calls_sampled_in_branches": self._sampled,
        }


def troubles(metrics: Mapping[str, float]) -> list[str]:
    """What is bad about a step or an evaluation, in a few words each, for its line."""
    found = []
    if metrics.get("rollouts_without_calls"):
        found.append(f"{_of(metrics, 'rollouts', 'rollouts_without_calls')} rollouts without a call")
    if metrics.get("answers_cut_off", 0.0) >= MANY_CUT_OFF:
        found.append(f"{_of(metrics, 'answers', 'answers_cut_off')} answers cut off")
    if metrics.get("tool_calls_malformed", 0.0) >= MANY_MALFORMED:
        found.append(f"{_of(metrics, 'tool_calls', 'tool_calls_malformed')} tool calls malformed")
    if metrics.get("rollouts", 0) > 1 and metrics["reward_min"] == metrics["reward_max"]:
        found.append(f"all rewards {metrics['reward_min']:.3g}")
    elif metrics.get("groups_without_spread", 0.0) > MANY_WITHOUT_SPREAD:
        found.append(f"{_of(metrics, 'groups', 'groups_without_spread')} groups without spread")
    found += [f"no optimizer step{_of_policy(name)}" for name in _optimizer_steps([metrics]) if metrics[name] == 0]
    return found


def findings(metrics: Sequence[Metric], evaluations: Sequence[Evaluation] = ()) -> list[str]:
    """What a run's numbers say against its having learned anything: a sentence each, with what to do."""
    steps: dict[int, dict[str, float]] = {}
    for metric in metrics:
        steps.setdefault(metric.step, {})[metric.name] = metric.value
    numbers = list(steps.values())
    return [
        *_of_updates(numbers),
        *_of_calls(numbers),
        *_of_spread(numbers),
        *_of_answers(numbers),
        *_of_tools(numbers),
        *too_few(evaluations),
    ]


def too_few(evaluations: Sequence[Evaluation]) -> list[str]:
    """What a number of held-out tasks says against any result on them."""
    count = max((len(evaluation.tasks) for evaluation in evaluations), default=None)
    if count is None or count >= ENOUGH_TASKS:
        return []
    return [held_out_note(count)]


def held_out_note(count: int) -> str:
    """That so many held-out tasks are too few."""
    tasks = "1 held-out task" if count == 1 else f"{count} held-out tasks"
    return f"{tasks} cannot tell whether anything was learned: hold out {ENOUGH_TASKS} or more"


def _of_updates(steps: Sequence[Mapping[str, float]]) -> list[str]:
    scored = [step for step in steps if step.get("rollouts")]
    rollouts = sum(int(step["rollouts"]) for step in scored)
    low = min((step["reward_min"] for step in scored), default=0.0)
    high = max((step["reward_max"] for step in scored), default=1.0)
    is_constant = rollouts > 1 and low == high
    why = f"all rewards were {low:g}" if is_constant else "no group of rollouts had different rewards"
    mend = (
        f"the reward gave {low:g} to each of {rollouts} rollouts: it cannot tell good from bad, "
        "or none is any good yet (easier tasks, partial credit)"
    )
    made = {name: [step[name] for step in steps if name in step] for name in _optimizer_steps(steps)}
    none = [_of_policy(name) for name, counts in made.items() if not any(counts)]
    if none and len(none) == len(made):
        return [f"no optimizer step was made: {why}", *([mend] if is_constant else [])]
    if is_constant:
        return [f"the rewards never varied: {mend}"]
    found = [f"no optimizer step was made{policy}: did its agents act, with rewards that differ?" for policy in none]
    for name, counts in made.items():
        idle = sum(count == 0 for count in counts)
        if len(counts) > idle > len(counts) / 2:
            found.append(f"in {idle} of {len(counts)} steps no optimizer step was made{_of_policy(name)}")
    return found


def _optimizer_steps(steps: Iterable[Mapping[str, float]]) -> list[str]:
    """The names of the numbers of optimizer steps: one, or one for each of several policies."""
    names = dict.fromkeys(name for step in steps for name in step)
    return [name for name in names if name.rpartition("/")[2] == "optimizer_steps"]


def _of_policy(name: str) -> str:
    """Whose number it is, where there are several policies."""
    policy = name.rpartition("/")[0]
    return f" for the policy {policy}" if policy else ""


def _of_calls(steps: Sequence[Mapping[str, float]]) -> list[str]:
    rollouts, without = _total(steps, "rollouts", "rollouts_without_calls")
    if not without:
        return []
    return [
        f"{without} of {rollouts} rollouts made no call of the policy while others of their task did, and taught "
        f"nothing: {ANSWERED_BY_A_CACHE}"
    ]


def _of_spread(steps: Sequence[Mapping[str, float]]) -> list[str]:
    groups, without = _total(steps, "groups", "groups_without_spread")
    if not groups or without <= groups * MANY_WITHOUT_SPREAD:
        return []
    return [
        f"{without} of {groups} groups had no spread (every rollout of the task with the same reward) and taught "
        "nothing: take tasks that are neither too hard nor too easy, a finer reward, a larger group_size or temperature"
    ]


def _of_answers(steps: Sequence[Mapping[str, float]]) -> list[str]:
    answers, cut_off = _total(steps, "answers", "answers_cut_off")
    if not answers or cut_off < answers * MANY_CUT_OFF:
        return []
    limits = Counter(int(step["answers_cut_off_at"]) for step in steps if "answers_cut_off_at" in step)
    if limits:
        limit = f"at max_tokens={limits.most_common(1)[0][0]}: raise max_tokens in the agent's model client"
    else:
        limit = "at the longest that they may be: raise max_tokens (the agent's, or the engine's), or max_context"
    return [f"{cut_off} of {answers} answers were cut off {limit}"]


def _of_tools(steps: Sequence[Mapping[str, float]]) -> list[str]:
    calls, malformed = _total(steps, "tool_calls", "tool_calls_malformed")
    offered = sum(int(step.get("answers_with_tools", 0)) for step in steps)
    look = "does the chat template show the tools, and the syntax of a call (model.chat_template)?"
    if offered and not calls:
        return [f"tools were offered for {offered} answers and never called: {look}"]
    if calls and malformed >= calls * MANY_MALFORMED:
        return [f"{malformed} of {calls} tool calls were malformed: {look}"]
    return []


def _total(steps: Sequence[Mapping[str, float]], count: str, share: str) -> tuple[int, int]:
    total = sum(int(step.get(count, 0)) for step in steps)
    return total, sum(round(step.get(count, 0) * step.get(share, 0.0)) for step in steps)


def _of(metrics: Mapping[str, float], count: str, share: str) -> str:
    return f"{round(metrics[count] * metrics[share])}/{int(metrics[count])}"


def holds_unread_call(answer: Generation) -> bool:
    """Whether the text of an answer that came to its end holds a tool call which nobody could read."""
    return answer.finish_reason not in CUT_OFF and bool(CALL_IN_TEXT.search(_text(answer.response or {})))


def is_well_formed(call: Mapping[str, Any]) -> bool:
    """Whether a tool call's arguments are a JSON object; a custom tool takes any text."""
    function = call.get("function")
    if not isinstance(function, Mapping):
        return True
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return False
    return arguments is None or isinstance(arguments, Mapping)


def _text(message: Mapping[str, Any]) -> str:
    """The text of an answer, without what it thought."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return THOUGHT.sub("", content) if isinstance(content, str) else ""
