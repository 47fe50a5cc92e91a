"""Going on with a run: which one, from which checkpoint, whether it is still the same run; and making it again from
its record."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from agentlightning.config import Config, RewardConfig, TasksConfig, decode_section
from agentlightning.errors import ConfigError
from agentlightning.records import Task, encode
from agentlightning.redaction import REDACTED
from agentlightning.store.base import Checkpoint, RunRecord, Store

MAY_CHANGE = ("runner", "promote", "directory", "tasks.source", "held_out.source", "objects")
"""Paths in a run's config, with all that is under them, that change nothing of what is learned."""
MAY_GROW = ("algorithm.steps", "budget")
MAX_NAMED = 6


async def find_run_to_resume(store: Store, name: str, resume: bool | str) -> RunRecord:
    """The run of the id ``resume``, or with True the last one of this name that did not succeed.

    Raises `ConfigError` where there is none, or where it needs no going on.
    """
    runs = await store.runs()
    if isinstance(resume, str):
        found = [run for run in runs if run.id == resume]
    else:
        found = [run for run in runs if run.name == name and run.status != "succeeded"]
    if not found:
        wanted = f"run {resume}" if isinstance(resume, str) else f"unfinished run named {name}"
        raise ConfigError(f"there is no {wanted} to resume in this store; `agl runs` lists what is there")
    if found[-1].status == "succeeded":
        raise ConfigError(
            f"run {found[-1].id} has succeeded, and keeps what it made but nothing to go on from: "
            "start a new run from its model, without --resume"
        )
    return found[-1]


async def usable_checkpoint(store: Store, run: RunRecord) -> Checkpoint | None:
    """Where the run goes on from; None at its beginning. Raises `ConfigError` where its files are gone."""
    checkpoint = await store.last_checkpoint(run.id)
    if checkpoint is not None and checkpoint.path is not None and not Path(checkpoint.path).is_dir():
        raise ConfigError(
            f"run {run.id}: the checkpoint of step {checkpoint.step} should lie in {checkpoint.path}, and does not "
            "(`agl prune` removes checkpoints); put it back, or start a new run without --resume"
        )
    return checkpoint


def refuse_what_differs(before: RunRecord, now: RunRecord) -> None:
    """Raises `ConfigError`, naming what differs, where going on with ``before`` as ``now`` says would make another run
    of it: what it was until then would be recorded, and compared, as if it were one."""
    changes = {
        path: (old, new)
        for path, (old, new) in _changes(before, now).items()
        if not _is_under(path, MAY_CHANGE) and not (path in MAY_GROW and _is_more(old, new))
    }
    if not changes:
        return
    if "algorithm.name" in changes:  # then its options differ, too
        changes = {"algorithm.name": changes["algorithm.name"]}
    differences = [f"{path}: was {_shown(old)}, now {_shown(new)}" for path, (old, new) in changes.items()]
    more = f"; and {len(differences) - MAX_NAMED} more" if len(differences) > MAX_NAMED else ""
    raise ConfigError(
        f"run {before.id} cannot go on with another config. {'; '.join(differences[:MAX_NAMED])}{more}. "
        "Leave it as it was, or start a new run without --resume"
    )


def config_of(run: RunRecord) -> tuple[Config, str | None]:
    """A run's config as a file would hold it, and the source of its held-out tasks where that was given apart.

    Raises `ConfigError` where the record cannot say all: a part was given as a Python object, or held a secret.
    """
    objects = run.config.get("objects", ["config"])
    if objects:
        raise ConfigError(
            f"run {run.id} cannot be made again from its record: {', '.join(objects)} was given as a Python object; "
            "go on with it from where that is made: Trainer(…).fit(resume=…)"
        )
    if REDACTED in str(run.config):
        raise ConfigError(f"run {run.id} cannot be made again from its record, which keeps no secret: name its config")
    names = ("agent", "reward", "algorithm", "train", "prompts", "budget", "runner", "directory")
    values = {name: run.config[name] for name in names}
    values |= {name: run.config[name] for name in ("promote", "prompts_from") if name in run.config}
    values |= {"tasks": run.config["tasks"]["source"], "name": run.name, "seed": run.seed}
    return decode_section(values, Config, where=f"run {run.id}"), run.config["held_out"].get("source")


def objects_among(**parts: Any) -> list[str]:
    """The names of those parts of a config that hold objects, which no record can keep."""
    plain = (str, dict, RewardConfig, TasksConfig, NoneType)
    return [
        name
        for name, part in parts.items()
        if not (all(isinstance(item, plain) for item in part) if name == "reward" else isinstance(part, plain))
    ]


def described_tasks(tasks: Sequence[Task], source: Any) -> dict[str, Any]:
    """Which tasks these are, for the run's record."""
    about: dict[str, Any] = {"count": len(tasks), "digest": digest_of(tasks)}
    return {"source": source, **about} if isinstance(source, str | TasksConfig) else about


def name_of(part: Any) -> str:
    """A part of a config that was given as an object: its name, or its type's."""
    name = getattr(part, "__qualname__", None)
    return name if isinstance(name, str) else type(part).__qualname__


def digest_of(tasks: Sequence[Task]) -> str:
    """The same for the same tasks in the same order."""
    digest = hashlib.blake2b(digest_size=8)
    for task in tasks:
        # An object that is none of the plain types is recorded as its repr, with its address.
        digest.update(re.sub(rb" at 0x[0-9a-f]+", b"", encode(task)))
    return digest.hexdigest()


def _changes(before: RunRecord, now: RunRecord) -> dict[str, tuple[Any, Any]]:
    """What differs, by its path in the config, as it was and as it is."""
    old = dict(_flat({**before.config, "seed": before.seed}))
    new = dict(_flat({**now.config, "seed": now.seed}))
    paths = [*old, *(path for path in new if path not in old)]
    return {path: (old.get(path), new.get(path)) for path in paths if old.get(path) != new.get(path)}


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _shown(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _is_under(path: str, parents: Sequence[str]) -> bool:
    return any(path == parent or path.startswith(f"{parent}.") for parent in parents)


def _is_more(old: Any, new: Any) -> bool:
    return isinstance(old, int) and isinstance(new, int) and new > old
