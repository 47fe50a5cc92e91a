"""Where the ``openai`` client is hooked into.

``SyncAPIClient.request`` and ``AsyncAPIClient.request`` see every call of every resource, whatever it was made with
(``with_raw_response``, ``parse``, ``stream`` …), with its options before anything is sent. A `Call` goes along as the
options' ``post_parser``: the client hands it whatever it parses, a stream included, at the moment the agent gets it.

Others wrap the client, too. Where they have put a ``request`` of their own on a subclass before us, as OpenInference
does on ``openai.OpenAI``, that one is patched as well as the one it may call, and the outermost sees the call. Last of
all, ``_build_request`` makes the request that is sent: a call that comes by without its `Call` was not seen, and is
stopped there (`agentlightning_openai.guard`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from agentlightning.patching import Patches
from agentlightning.recording import current
from agentlightning_openai import direct, guard, internals
from agentlightning_openai.call import Call, begin

logger = logging.getLogger(__name__)

_patches = Patches()
_warned = False


def install() -> None:
    """Patches the client, once. Without a client that can be patched: one warning, no failure."""
    global _warned
    if _patches.in_place:
        return
    try:
        points = internals.patch_points(
            request=_request,
            request_async=_request_async,
            build=_build_request,
            sleep=_sleep_for_retry,
            collect=_collected,
        )
        _patches.add(*points)
    except (ImportError, AttributeError) as error:
        if not _warned:
            logger.warning(
                "model calls are neither recorded nor redirected: the openai client cannot be hooked into (%s); "
                "install openai>=2",
                error,
            )
        _warned = True


def uninstall() -> None:
    """Puts every method back as it was."""
    _patches.remove()
    direct.uninstall()


def _request(request: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    call = _begin(client, *args, **kwargs)
    if call is None:
        return request(*args, **kwargs)
    with call:
        result = _send(request, call, *args, **kwargs)
    call.returned(result)
    return result


async def _request_async(
    request: Callable[..., Awaitable[Any]], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    call = _begin(client, *args, **kwargs)
    if call is None:
        return await request(*args, **kwargs)
    with call:
        result = await _send(request, call, *args, **kwargs)
    call.returned(result)
    return result


def _begin(client: Any, cast_to: Any, options: Any, **_: Any) -> Call | None:
    """The call that a request is, where it is to be recorded here: not outside a rollout, and not where a ``request``
    further out has begun it."""
    recorder = current()
    if recorder is None or recorder.forked or isinstance(options.post_parser, Call):
        return None
    return begin(recorder, client, options)


def _send(request: Callable[..., Any], call: Call, cast_to: Any, options: Any, **kwargs: Any) -> Any:
    return request(cast_to, call.options, **kwargs)


def _build_request(build: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    options = args[0] if args else kwargs["options"]
    call = options.post_parser
    if not isinstance(call, Call):
        guard.check(client, options)
        return build(*args, **kwargs)
    request = build(*args, **kwargs)
    call.built(request)
    return request


def _sleep_for_retry(sleep: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    call = getattr(kwargs.get("options"), "post_parser", None)
    if isinstance(call, Call):
        call.retries += 1
    return sleep(*args, **kwargs)


def _collected(close: Callable[[], None], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """An asynchronous client that nobody closed must not close itself when it is collected as garbage.

    It would do so in a task of the running loop, later. By then the collector has finalized the client's transports,
    too, which closes their sockets; another rollout's new connections have got the same file descriptors; and closing a
    transport whose socket is closed already makes the event loop stop watching that file descriptor: the other rollout
    waits for an answer that has arrived. The transports alone close every socket.
    """
