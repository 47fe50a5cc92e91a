"""What an answer with citations is worth, by HotpotQA's measures; and what its searches were."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agentlightning import Reward
from agentlightning.answers import output_text
from agentlightning.records import Rollout, Span, Task
from agentlightning.semconv import TOOL_CALL_RESULT

CITATION = re.compile(r"\[([0-9]+)\]")
SHOWN = re.compile(r"^\[([0-9]+)\]", re.MULTILINE)
"""How a result of the search begins each passage."""
ARTICLE = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
WHOLE_OR_NOTHING = ("yes", "no", "noanswer")
USED = 0.1


class Score(NamedTuple):
    """How well one collection agrees with another."""

    f1: float
    precision: float
    recall: float


def answer(rollout: Rollout, task: Task) -> list[Reward]:
    """The outcome: token F1 of the answer, its citations aside. Whether it is exact is told beside it."""
    said, expected = CITATION.sub(" ", output_text(rollout.output)), task.expected["answer"]
    exact = normalized(said) == normalized(expected)
    return [
        Reward(name="f1", value=answer_score(said, expected).f1),
        Reward(name="exact", value=exact, weight=0.0),
    ]


def citations(rollout: Rollout, task: Task, spans: Sequence[Span]) -> list[Reward]:
    """F1 of the passages that the answer cites; precision and recall are told beside it.

    A passage that no search has shown is a wrong citation, whatever it says: the agent cannot have read it.
    """
    read, needed = shown(searches(spans)), supporting(task)
    cited = {number if number in read else f"unread {number}" for number in cited_in(rollout)}
    score = set_score(cited, needed)
    return [
        Reward(name="f1", value=score.f1),
        Reward(name="precision", value=score.precision, weight=0.0),
        Reward(name="recall", value=score.recall, weight=0.0),
    ]


def used(rollout: Rollout, task: Task, spans: Sequence[Span]) -> list[Reward]:
    """A step reward for each search that was the first to show a supporting passage which the answer then cites."""
    wanted = supporting(task) & cited_in(rollout)
    rewards = []
    for search in searches(spans):
        found = wanted & shown([search])
        wanted -= found
        if found:
            reason = f"cited: {', '.join(sorted(found))}"
            rewards.append(Reward(name="search", value=len(found), weight=USED, span_id=search.id, reason=reason))
    return rewards


def found(rollout: Rollout, task: Task, span: Span) -> float:
    """Progress: the share of the supporting passages that the agent had been shown before a call."""
    results = [str(message.get("content")) for message in span.generation.messages if message["role"] == "tool"]
    needed = supporting(task)
    return len(needed & numbers(results)) / len(needed)


def searches(spans: Sequence[Span]) -> list[Span]:
    """The searches that succeeded, in their order."""
    return [span for span in spans if span.kind == "tool" and span.name == "search" and span.failure is None]


def shown(searched: Iterable[Span]) -> set[str]:
    """The numbers of the passages that these searches found."""
    return numbers(str(span.attributes.get(TOOL_CALL_RESULT)) for span in searched)


def numbers(results: Iterable[str]) -> set[str]:
    return {number for result in results for number in SHOWN.findall(result)}


def cited_in(rollout: Rollout) -> set[str]:
    """Numbers as they are written: one of a million digits is none that any passage has, and is never computed."""
    return set(CITATION.findall(output_text(rollout.output)))


def supporting(task: Task) -> set[str]:
    return {str(number) for number in task.expected["passages"]}


def normalized(text: str) -> str:
    """As HotpotQA compares answers: in lower case, without ASCII punctuation and articles, with single spaces."""
    return " ".join(ARTICLE.sub(" ", text.lower().translate(PUNCTUATION)).split())


def answer_score(said: str, expected: str) -> Score:
    """Of the words of an answer; *yes* and *no* are right or wrong as a whole."""
    said, expected = normalized(said), normalized(expected)
    if said != expected and (said in WHOLE_OR_NOTHING or expected in WHOLE_OR_NOTHING):
        return Score(0.0, 0.0, 0.0)
    one, other = said.split(), expected.split()
    return score_of((Counter(one) & Counter(other)).total(), len(one), len(other))


def set_score(said: set[str], expected: set[str]) -> Score:
    return score_of(len(said & expected), len(said), len(expected))


def score_of(same: int, said: int, expected: int) -> Score:
    if same == 0:
        return Score(0.0, 0.0, 0.0)
    precision, recall = same / said, same / expected
    return Score(2 * precision * recall / (precision + recall), precision, recall)
