"""The one place that knows the insides of the ``openai`` client.

``SyncAPIClient.request`` and ``AsyncAPIClient.request`` see every call of every resource, whatever it was
made with (``with_raw_response``, ``parse``, ``stream`` …), with its options before anything is sent. A call
rides along as the options' ``post_parser``: the client hands it whatever it parses, a stream included, at
the moment the agent gets it. Checked with openai 2.0, 2.54 and 3.54.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

from agentlightning.recording import current
from agentlightning_openai.call import Call, begin

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_patches: list[_Patch] = []
_warned = False


class _Patch:
    """One method of a class, replaced; ``remove`` puts back the very object that was there."""

    def __init__(self, owner: type, name: str, wrap: Callable[[_Patch, Any], Any]) -> None:
        self.owner, self.name = owner, name
        self.original = owner.__dict__[name]
        self.active = True
        self.wrapper = wrap(self, self.original)
        setattr(owner, name, self.wrapper)

    def remove(self) -> None:
        self.active = False
        if self.owner.__dict__.get(self.name) is self.wrapper:
            setattr(self.owner, self.name, self.original)
        else:
            logger.warning(
                "%s.%s was patched by someone else as well, later; ours stays under it, switched off",
                self.owner.__qualname__,
                self.name,
            )


def install() -> None:
    """Patches the client, once. Without a client that can be patched: one warning, no failure."""
    global _warned
    with _lock:
        if _patches:
            return
        try:
            import openai._base_client as client

            wraps = [
                (client.SyncAPIClient, "request", _sync_request),
                (client.AsyncAPIClient, "request", _async_request),
            ]
            missing = [owner.__qualname__ for owner, name, _ in wraps if name not in owner.__dict__]
            if missing:
                raise ImportError(f"{', '.join(missing)} has no method request")
        except ImportError as error:
            if not _warned:
                logger.warning(
                    "model calls are neither recorded nor redirected: the openai client cannot be hooked into (%s); "
                    "install openai>=2",
                    error,
                )
            _warned = True
            return
        _patches.extend(_Patch(*wrap) for wrap in wraps)
        for owner, name, wrap in (
            (client.SyncAPIClient, "_sleep_for_retry", _counting_retries),
            (client.AsyncAPIClient, "_sleep_for_retry", _counting_retries),
            (getattr(client, "AsyncHttpxClientWrapper", object), "__del__", _leaving_sockets_to_their_transports),
        ):
            if name in owner.__dict__:
                _patches.append(_Patch(owner, name, wrap))


def uninstall() -> None:
    """Puts every method back as it was."""
    with _lock:
        for patch in reversed(_patches):
            patch.remove()
        _patches.clear()


def _sync_request(patch: _Patch, original: Any) -> Any:
    @functools.wraps(original)
    def request(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        recorder = current()
        call = begin(recorder, self, options) if recorder is not None and patch.active else None
        if call is None:
            return original(self, cast_to, options, **kwargs)
        try:
            result = original(self, cast_to, call.options, **kwargs)
        except BaseException as error:
            call.fail(error)
            raise
        call.returned(result)
        return result

    return request


def _async_request(patch: _Patch, original: Any) -> Any:
    @functools.wraps(original)
    async def request(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        recorder = current()
        call = begin(recorder, self, options) if recorder is not None and patch.active else None
        if call is None:
            return await original(self, cast_to, options, **kwargs)
        try:
            result = await original(self, cast_to, call.options, **kwargs)
        except BaseException as error:
            call.fail(error)
            raise
        call.returned(result)
        return result

    return request


def _counting_retries(patch: _Patch, original: Any) -> Any:
    @functools.wraps(original)
    def sleep_for_retry(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = getattr(kwargs.get("options"), "post_parser", None)
        if isinstance(call, Call):
            call.retries += 1
        return original(self, *args, **kwargs)

    return sleep_for_retry


def _leaving_sockets_to_their_transports(patch: _Patch, original: Any) -> Any:
    """An asynchronous client that nobody closed must not close itself when it is collected as garbage.

    It would do so in a task of the running loop, later. By then the collector has finalized the client's
    transports, too, which closes their sockets; another rollout's new connections have got the same file
    descriptors; and closing a transport whose socket is closed already makes the loop deaf for that number:
    the other rollout waits for an answer that has arrived. The transports alone close every socket.
    """

    @functools.wraps(original)
    def collected(self: Any) -> None:
        if not patch.active:
            original(self)

    return collected
