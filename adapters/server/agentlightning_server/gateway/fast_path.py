"""Model calls go straight to their routes: past the layers that Starlette has around every route, none of which they
need."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send


class FastPath:
    """Answers by ``calls``, whose endpoints answer for every error themselves, and by ``app`` what is for none of
    them."""

    def __init__(self, app: ASGIApp, calls: Sequence[Route]) -> None:
        self._app = app
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            for route in self._calls:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    await route.app(scope, receive, send)
                    return
        await self._app(scope, receive, send)
