"""What of an agent's prompts may be changed: its roles, found in rollouts."""

from __future__ import annotations

import glob
import string
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agentlightning.errors import AlgorithmError
from agentlightning.loading import nearest
from agentlightning.prompts import prompts_in
from agentlightning.recording import matches
from agentlightning.records import Prompt, Rollout, Span
from agentlightning.system_prompts import SYSTEM_ROLES, text_of

Observed = tuple[Rollout, Sequence[Span]]
"""A rollout, and what happened in it."""
UNNAMED = "agent"
"""What an agent without a name is called."""


class Role(msgspec.Struct, kw_only=True, frozen=True):
    """A prompt of the agent under learning: the system prompt of the calls that ``agent`` makes, or, where ``named``,
    one that the code asks for (`agentlightning.prompt`).

    ``text`` is what it says now: empty where the calls have no system prompt, None where that differs from task to task
    and so can be no one's to change. ``replaces`` tells its calls from the others of the agent, ``only`` says that no
    other role makes calls. ``fields`` are the ``{variables}`` of a named prompt.
    """

    name: str
    agent: str | None = None
    named: bool = False
    text: str | None = None
    replaces: str | None = None
    only: bool = False
    fields: tuple[str, ...] = ()

    def prompt(self, text: str | None = None, *, demonstrations: Sequence[list[dict[str, Any]]] = ()) -> Prompt:
        """The resource that gives this role another text (None: it keeps its own), and demonstrations."""
        agents = () if self.named else ("*",) if self.only else (glob.escape(self.agent or ""),)
        return Prompt(
            name=self.name,
            agents=agents,
            template=text,
            replaces=None if self.only else self.replaces,
            demonstrations=tuple(demonstrations),
        )

    def has(self, span: Span) -> bool:
        """Whether a model call, made before anything was changed, is one of this role."""
        if self.named or span.kind != "llm" or span.generation is None or span.agent != self.agent:
            return False
        return self.replaces is None or self.replaces in _system_texts(span)

    def refusal(self, text: str) -> str | None:
        """Why a text cannot take the place of this role's; None where it can."""
        if self.text is None:
            return (
                "its system prompt differs from task to task: ask for the part that stays by agl.prompt(name, default)"
            )
        if not text.strip():
            return "it is empty"
        if not self.named or fields_of(self.text) is None:
            return None
        found = fields_of(text)
        if found is None:
            return "it is no format string: a brace that is no field is written twice, {{ or }}"
        lost, gained = sorted(set(self.fields) - set(found)), sorted(set(found) - set(self.fields))
        if lost:
            return f"it lost {', '.join(f'{{{name}}}' for name in lost)}"
        return f"it has {', '.join(f'{{{name}}}' for name in gained)}, which nobody fills in" if gained else None


def fields_of(text: str) -> tuple[str, ...] | None:
    """The names of a format string's fields, in their order, each once; None where it is no format string."""
    try:
        parsed = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError:
        return None
    return tuple(dict.fromkeys(name.partition(".")[0].partition("[")[0] for name in parsed))


def find_roles(observed: Sequence[Observed], *, agents: Sequence[str] = ("*",)) -> list[Role]:
    """The roles in rollouts of several tasks: named prompts first, then those of agents with these name patterns.

    The rollouts ran without what is to be found. A system prompt that stands in rollouts of several tasks is fixed: an
    agent has a role for each of these, and one without a text where it has none.
    """
    spans = [span for _, members in observed for span in members]
    found = [
        Role(name=it.name, named=True, text=it.text, fields=fields_of(it.text) or ())
        for it in prompts_in(spans)
        if it.name is not None
    ]
    texts = _tasks_by_text(observed)
    roles = [role for agent in texts if matches(agent, agents) for role in _roles_of(agent, texts)]
    taken = {role.name for role in found}
    for role in roles:
        name = role.name
        while name in taken:
            name += "'"
        taken.add(name)
        found.append(msgspec.structs.replace(role, name=name))
    return found


def chosen_roles(roles: Sequence[Role], names: Sequence[str]) -> list[Role]:
    """The roles of these names (agents or prompts), all where none is named. Raises `AlgorithmError` for a name that
    there is not."""
    known = {name for role in roles for name in (role.name, role.agent) if name is not None}
    for name in names:
        if name not in known:
            there = ", ".join(role.name for role in roles) or "none"
            raise AlgorithmError(
                f"algorithm.prompts: the first rollouts have no prompt {name!r}{nearest(name, known)}; there is {there}"
            )
    return [role for role in roles if not names or role.name in names or role.agent in names]


def _roles_of(agent: str | None, texts: Mapping[str | None, Mapping[str, set[str]]]) -> list[Role]:
    tasks = {task for members in texts.values() for found in members.values() for task in found}
    fixed = [text for text, seen in texts[agent].items() if len(seen) > 1 or len(tasks) == 1]
    if len(fixed) > 1:
        fixed = [text for text in fixed if text]  # nothing tells calls without a system prompt from the others
    only = len(texts) == 1 and (not fixed or len(texts[agent]) == 1)
    name = agent or UNNAMED
    if not fixed:
        return [Role(name=name, agent=agent, only=only)]
    elsewhere = {text for other, members in texts.items() if other != agent for text in members}
    return [
        Role(
            name=name if len(fixed) == 1 else f"{name} {number}",
            agent=agent,
            text=text,
            replaces=text if text and (text not in elsewhere or len(texts[agent]) > 1) else None,
            only=only,
        )
        for number, text in enumerate(fixed, start=1)
    ]


def _tasks_by_text(observed: Sequence[Observed]) -> dict[str | None, dict[str, set[str]]]:
    """Agent → system prompt → the tasks in whose rollouts it stands."""
    texts: dict[str | None, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for rollout, spans in observed:
        for span in spans:
            if span.kind == "llm" and span.generation is not None:
                for text in _system_texts(span)[:1] or [""]:
                    texts[span.agent][text].add(rollout.task_id)
    return texts


def _system_texts(span: Span) -> list[str]:
    messages = span.generation.messages if span.generation is not None else []
    return [text_of(message.get("content")) or "" for message in messages if message.get("role") in SYSTEM_ROLES]
