"""The tree of errors. A message says what was wrong, where, and what to do next."""

from __future__ import annotations

import errno


class AgentLightningError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigError(AgentLightningError):
    """A config file or an argument is wrong; the message names its path, as in ``algorithm.lr``."""


class DataError(AgentLightningError):
    """A task file or data set is missing, empty or malformed; the message names file and line."""


class PluginError(AgentLightningError):
    """A plugin is unknown, ambiguous or broken; the message names it and its distribution."""


class AdapterError(AgentLightningError):
    """No installed adapter runs the agent, or the one that does cannot use it as it is."""


class RedirectError(AdapterError):
    """A model call could not be sent where the resources of its rollout say, so it was not sent at all."""


class DivergedError(RedirectError):
    """A rollout that should repeat another made a call which that one did not make."""


class RewardError(AgentLightningError):
    """A reward plugin gave something that is not a finite number, a dict of them, or None."""


class PromotionError(AgentLightningError):
    """What is in production cannot be changed so: a canary goes on, say, or there is nothing to go back to."""


class CheckError(AgentLightningError):
    """The first rollout showed that a run would be pointless; the message says why, a line for each reason."""


class StoreError(AgentLightningError):
    """The store cannot be opened, read or written."""


class StoreRefusedError(StoreError):
    """The store will never take what it was given, as that is: to try it again is in vain. Any other `StoreError` may
    pass: a disk is full, a server is away."""


class StoreBusyError(StoreError):
    """Another live process holds what was asked for."""


class PolicyError(AgentLightningError):
    """A model cannot be loaded, served, trained or saved."""


class AlgorithmError(AgentLightningError):
    """An algorithm cannot go on: nothing to train on, or a loss that is not finite."""


class BudgetError(AlgorithmError):
    """More rollouts were asked for than are left of the run's budget; none of them was run."""


def advice(error: BaseException) -> str | None:
    """What an error of the system means, and what to do about it, in a line; None for one that says it itself."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        found = _advice(link)
        if found is not None:
            return found
        link = link.__cause__ or link.__context__
    return None


_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    getattr(errno, "EDQUOT", errno.ENOSPC): "the disk quota is used up: free some space",
    errno.EACCES: "permission denied: let this user write there, or name another place (`directory`, `store`)",
    errno.EPERM: "permission denied: let this user write there, or name another place (`directory`, `store`)",
    errno.EROFS: "the file system is read-only: name another place (`directory`, `store`)",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n), or lower runner.concurrency",
    errno.EADDRINUSE: "the port is taken: name another, or 0 for any that is free",
}
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "failed to allocate")


def _advice(error: BaseException) -> str | None:
    if isinstance(error, AgentLightningError):
        return None
    text = str(error)
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError | OSError) and any(sign in text for sign in _OUT_OF_MEMORY))
    ):
        return (
            "out of memory: make what is held at once smaller (a smaller model, model.lora, "
            "algorithm.max_tokens_per_micro_batch, engine.max_batch, engine.cache_memory, runner.concurrency)"
        )
    if isinstance(error, OSError) and error.errno in _ADVICE:
        return f"{error.filename}: {_ADVICE[error.errno]}" if error.filename else _ADVICE[error.errno]
    if "No space left on device" in text or "file write failed" in text:  # told by a library that has no errno
        return _ADVICE[errno.ENOSPC]
    return None


def text_of(error: BaseException) -> str:
    """The message of anybody's exception; empty where its ``__str__`` fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it is a stranger's code, too
        return ""
