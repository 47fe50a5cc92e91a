"""LangChain's cache of answers (``set_llm_cache``), bypassed where a policy is to answer, or another prompt or model
is used than the agent's own: each rollout asks anew, and LangChain's key for an answer knows nothing of that."""

from __future__ import annotations

from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.globals import get_llm_cache, set_llm_cache

from agentlightning.recording import current, locate, matches


class BypassedCache(BaseCache):
    """The cache that the agent has set, which knows and keeps nothing for calls of agents that a resource is for."""

    def __init__(self, cache: BaseCache) -> None:
        self.cache = cache

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return None if _has_resource() else self.cache.lookup(prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        if not _has_resource():
            self.cache.update(prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:
        self.cache.clear(**kwargs)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return None if _has_resource() else await self.cache.alookup(prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        if not _has_resource():
            await self.cache.aupdate(prompt, llm_string, return_val)

    async def aclear(self, **kwargs: Any) -> None:
        await self.cache.aclear(**kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)


def install() -> None:
    """Stands before the cache that is set now, where one is."""
    cache = get_llm_cache()
    if cache is not None and not isinstance(cache, BypassedCache):
        set_llm_cache(BypassedCache(cache))


def uninstall() -> None:
    """Sets the agent's cache again."""
    cache = get_llm_cache()
    if isinstance(cache, BypassedCache):
        set_llm_cache(cache.cache)


def _has_resource() -> bool:
    recorder = current()
    if recorder is None or not recorder.resources:
        return False
    span = locate(recorder)
    agent = span.agent if span is not None else None
    return any(matches(agent, resource.agents) for resource in recorder.resources)
