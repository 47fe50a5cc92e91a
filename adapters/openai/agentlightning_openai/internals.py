"""Everything that is used of the ``openai`` client and its HTTP library and not promised by their documentation.

Checked with openai 2.0, 2.54 and 3.54, on httpx and httpx2.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any

from agentlightning.patching import Wrapper

OWN_HEADER_PREFIXES = ("x-stainless-", "____stainless_")
"""Of the client's own headers: raw responses, and the type that a raw response is parsed into."""


def patch_points(
    *, request: Wrapper, request_async: Wrapper, build: Wrapper, sleep: Wrapper, collect: Wrapper
) -> list[tuple[type, str, Wrapper]]:
    """The methods to wrap: what every request passes through, also where others have put a method of their own on a
    derived class; what makes of it the HTTP request that is sent; and, where there are any, the pause before another
    try and the finalizer of asynchronous clients.

    Raises `ImportError` and `AttributeError` where this client has none.
    """
    import openai._base_client as client

    sync, asynchronous = client.SyncAPIClient, client.AsyncAPIClient
    optional = [
        (sync, "_sleep_for_retry", sleep),
        (asynchronous, "_sleep_for_retry", sleep),
        (getattr(client, "AsyncHttpxClientWrapper", object), "__del__", collect),
    ]
    return [
        *((kind, "request", request) for kind in _family(sync)),
        *((kind, "request", request_async) for kind in _family(asynchronous)),
        (client.BaseClient, "_build_request", build),
        *((owner, name, wrapper) for owner, name, wrapper in optional if name in vars(owner)),
    ]


def _family(base: type) -> Iterator[type]:
    """A client's base class, and all derived from it that define a ``request`` of their own."""
    yield base
    subclasses: list[type] = base.__subclasses__()
    for kind in subclasses:
        yield from (each for each in _family(kind) if "request" in vars(each))


def omitted() -> Any:
    """What stands for a header or query parameter that is not to be sent."""
    from openai._types import Omit

    return Omit()


def http_client(client: Any) -> Any:
    """The client of the HTTP library that a client sends through."""
    return getattr(client, "_client", None)


def signs_requests(client: Any) -> bool:
    """Whether a client has a provider that signs what it sends."""
    return bool(getattr(client, "_provider_runtime", None))


def construct(kind: Any, value: Any) -> Any:
    """An object of the client's types from a body that it has not parsed, valid or not."""
    from openai._models import construct_type

    return construct_type(type_=kind, value=value)


def events_in(content: bytes) -> Iterator[Any]:
    """The server-sent events of a body up to its end mark."""
    from openai._streaming import SSEDecoder

    for event in SSEDecoder().iter_bytes(iter([content])):
        if event.data.startswith("[DONE]"):
            break
        yield event


def is_stream(parsed: Any) -> bool:
    """Whether what the client has parsed is a stream of chunks, of either kind."""
    return hasattr(parsed, "_iterator")


def chunks_of(stream: Any) -> Any:
    """What a stream of the client's reads, by an iterator that does not refer to the stream itself.

    The client's own does. A stream that is left is then closed by the collector of cycles, in the middle of anything:
    also where the connection pool holds its lock, which closing a stream takes as well, and the thread waits for
    itself for ever. Without the cycle it is closed where the agent lets it go.
    """
    apart = copy.copy(stream)
    apart._iterator = None
    return apart.__stream__()


def replace_chunks(stream: Any, chunks: Any) -> None:
    """Has a stream that was not begun read from ``chunks``."""
    stream._iterator = chunks


def http_library(made_by: Any) -> Any:
    """The module that made a request or response of HTTP: httpx, or httpx2 since openai 3."""
    return sys.modules[type(made_by).__module__.partition(".")[0]]
