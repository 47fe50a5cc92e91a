"""The secrets that a request goes out with, so that none is written down wherever an endpoint repeats it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from agentlightning.recording import guarded
from agentlightning.redaction import remember, remember_named, remember_url

_seen: weakref.WeakSet[Any] = weakref.WeakSet()


@guarded
def remember_credentials(client: Any, options: Any) -> None:
    """Remembers the keys of a client and of a request: its API key, secret headers and query parameters, passwords in
    URLs, secret fields of its extra body."""
    remember(getattr(client, "api_key", None), getattr(client, "webhook_secret", None))
    if client not in _seen:
        _seen.add(client)
        remember_named(client.default_headers, of_request=True)
        remember_named(client.default_query, of_request=True)
        remember_url(str(client.base_url))
    if "?" in options.url or "@" in options.url:
        remember_url(options.url)
    for fields in (options.headers, options.params):
        if fields and isinstance(fields, Mapping):
            remember_named(fields, of_request=True)
    if options.extra_json:
        remember_named(options.extra_json)
