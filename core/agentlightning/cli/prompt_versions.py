"""The versions of a run's prompts, as differences between their lines. Pure functions, but for what colours them."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from agentlightning.records import AnyResource, Prompt, Record, Rollout
from agentlightning.system_prompts import text_of

if TYPE_CHECKING:
    from rich.text import Text

ITS_OWN = "(the agent's own prompt)"
STYLES = {"+": "green", "-": "red", "@": "cyan"}


class PromptVersion(Record, kw_only=True):
    """A version of a prompt: the ``rollouts`` that ran with it, the ``mean`` outcome of those that were scored, and
    whether it was published last."""

    prompt: Prompt
    rollouts: int = 0
    mean: float | None = None
    published: bool = False


def versions_of(
    resources: Sequence[AnyResource], published: Mapping[str, str], rollouts: Sequence[Rollout]
) -> dict[str, list[PromptVersion]]:
    """Every prompt of a run by name, each with its versions from the first on. ``published`` maps a resource's name to
    the digest of what was published last."""
    outcomes: dict[str, list[float | None]] = defaultdict(list)
    for rollout in rollouts:
        for digest in rollout.resources.values():
            outcomes[digest].append(rollout.outcome if rollout.is_scorable else None)
    found: dict[str, list[PromptVersion]] = defaultdict(list)
    for resource in resources:
        if isinstance(resource, Prompt):
            scores = [score for score in outcomes[resource.digest] if score is not None]
            version = PromptVersion(
                prompt=resource,
                rollouts=len(outcomes[resource.digest]),
                mean=sum(scores) / len(scores) if scores else None,
                published=published.get(resource.name) == resource.digest,
            )
            found[resource.name].append(version)
    return {name: sorted(versions, key=lambda it: it.prompt.version) for name, versions in found.items()}


def first_of(versions: Sequence[PromptVersion]) -> PromptVersion:
    """What the others are compared with: a version 0 that has no demonstrations; else what the agent has by itself."""
    first = versions[0]
    if first.prompt.version == 0 and not first.prompt.demonstrations:
        return first
    return PromptVersion(prompt=msgspec.structs.replace(first.prompt, version=0, template=None, demonstrations=()))


def difference(before: Prompt, after: Prompt) -> list[str]:
    """The lines of a unified diff, without its header; none where both say the same."""
    lines = difflib.unified_diff(list(_lines(before)), list(_lines(after)), lineterm="", n=2)
    return list(lines)[2:]


def coloured(line: str) -> Text:
    """A line of a diff, as a terminal shows it."""
    from rich.text import Text

    return Text(line, style=STYLES.get(line[:1], ""))


def _lines(prompt: Prompt) -> Iterator[str]:
    text = prompt.template if prompt.template is not None else prompt.replaces
    yield from (text if text is not None else ITS_OWN).splitlines() or [""]
    for number, messages in enumerate(prompt.demonstrations, start=1):
        yield f"[demonstration {number}]"
        for message in messages:
            said = text_of(message.get("content")) or ""
            for call in message.get("tool_calls") or ():
                function = call.get("function") or {}
                said += f"{' ' if said else ''}[calls {function.get('name')}({function.get('arguments')})]"
            yield from f"{message.get('role')}: {said}".splitlines()
