"""Redirected requests go straight to their endpoint, past what the agent's HTTP client has on the way: proxies, mounts,
a transport, hooks, cookies. Each such client gets one beside it, of the same library (httpx, or httpx2 since openai 3),
that has none."""

from __future__ import annotations

import functools
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from agentlightning.patching import Patches
from agentlightning_openai.internals import http_library

_MARK = "agentlightning_direct"

_patches: dict[str, Patches] = {}
_beside: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""The agent's HTTP clients, and the one beside each."""
_lock = threading.Lock()


def send_directly(request: Any) -> None:
    """Marks a request that a client has built and will send."""
    library = http_library(request)
    patches = _patches.setdefault(library.__name__, Patches())
    if not patches.in_place:
        patches.add(
            (library.Client, "send", _send),
            (library.AsyncClient, "send", _send),
            (library.Client, "close", _close),
            (library.AsyncClient, "aclose", _close_async),
        )
    request.headers.pop("cookie", None)
    request.extensions = {**request.extensions, _MARK: True}


def uninstall() -> None:
    """Puts the HTTP libraries back as they were."""
    for patches in _patches.values():
        patches.remove()


def transport(library: Any, asynchronous: bool) -> Any:
    """What the clients of ours send through."""
    kind = library.AsyncHTTPTransport if asynchronous else library.HTTPTransport
    limits = library.Limits(max_connections=None, max_keepalive_connections=100)
    return kind(verify=_certificates(library), limits=limits)


@functools.cache
def _certificates(library: Any) -> ssl.SSLContext:
    """Those of the system and the environment; reading them takes longer than many a call."""
    made: ssl.SSLContext = library.create_ssl_context()
    return made


def _send(send: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    """``send`` of either kind of client: that of the client beside it, where the request is marked. A client that is
    closed says so itself."""
    request = args[0] if args else kwargs["request"]
    if _MARK in request.extensions and not client.is_closed and not hasattr(client, _MARK):
        send = _client_beside(client, http_library(request)).send
    return send(*args, **kwargs)


def _client_beside(client: Any, library: Any) -> Any:
    with _lock:
        beside = _beside.get(client)
        if beside is None:
            beside = _beside[client] = _make(client, library)
    return beside


def _make(client: Any, library: Any) -> Any:
    asynchronous = isinstance(client, library.AsyncClient)
    made = (library.AsyncClient if asynchronous else library.Client)(
        transport=transport(library, asynchronous), trust_env=False, follow_redirects=client.follow_redirects
    )
    setattr(made, _MARK, True)
    return made


def _close(close: Callable[[], None], client: Any, args: Any, kwargs: Any) -> None:
    beside = _beside.pop(client, None)
    try:
        close()
    finally:
        if beside is not None:
            beside.close()


async def _close_async(close: Callable[[], Awaitable[None]], client: Any, args: Any, kwargs: Any) -> None:
    beside = _beside.pop(client, None)
    try:
        await close()
    finally:
        if beside is not None:
            await beside.aclose()
