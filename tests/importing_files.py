"""What tests of imports share: a store on disk, files to import, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentlightning.importers.into_store import Imported, import_files
from agentlightning.records import Rollout, Span, Task
from agentlightning.store import Store

DATA = Path(__file__).parent / "importing" / "data"


class Imports:
    """Imports into the live run ``mine``, and looks at it."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.url = f"sqlite:///{folder}/store.db"

    async def read(self, *names: str, **options: Any) -> Imported:
        """Imports example files by name, or files of this folder."""
        paths = [path if (path := self.folder / name).exists() else DATA / name for name in names]
        return await import_files(self.store, paths, **{"name": "mine", **options})

    def write(self, name: str, *records: Any) -> str:
        """A file of JSON Lines; a text is a line as it is."""
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        (self.folder / name).write_text("\n".join(lines), encoding="utf-8")
        return name

    async def rollouts(self) -> list[Rollout]:
        return await self.store.rollouts("mine")

    async def rollout(self, source: str) -> tuple[Rollout, list[Span]]:
        """The rollout of a trace, by what its root's attributes say of the source."""
        for rollout in await self.rollouts():
            spans = await self.store.spans(rollout.id)
            if source in spans[0].attributes.values():
                return rollout, spans
        raise LookupError(source)

    async def task(self, rollout: Rollout) -> Task:
        return (await self.store.tasks("mine", [rollout.task_id]))[rollout.task_id]


def example(name: str) -> list[dict[str, Any]]:
    """The records of an example file."""
    text = (DATA / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]


def outline(spans: list[Span]) -> list[str]:
    """A line for each span: two spaces a level, kind, name, agent, its failure."""
    depth: dict[str | None, int] = {None: -1}
    lines = []
    for span in spans:
        depth[span.id] = depth[span.parent_id] + 1
        failed = f" !{span.failure.type}" if span.failure else ""
        lines.append(f"{'  ' * depth[span.id]}{span.kind} {span.name} [{span.agent}]{failed}")
    return lines


def unread(imported: Imported) -> dict[str, int]:
    """``what: reason`` → how many."""
    return {f"{found.what}: {found.reason}": found.count for found in imported.unread}
