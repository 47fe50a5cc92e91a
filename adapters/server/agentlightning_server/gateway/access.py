"""Who may make a call, and for which rollout; and every error of a route as an answer of the OpenAI API."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from agentlightning.errors import AdapterError, StoreError
from agentlightning.loading import explain
from agentlightning_openai.router import ROLLOUT_HEADER
from agentlightning_server import scope
from agentlightning_server.bodies import Bodies
from agentlightning_server.errors import RequestError, ServerError
from agentlightning_server.gateway.reply import Reply
from agentlightning_server.keys import Grant
from agentlightning_server.methods import Method
from agentlightning_server.scope import RunOf

logger = logging.getLogger(__name__)

Handle = Callable[[Request, Grant, Reply], Awaitable[None]]
JSON = "application/json"


class NamedRollout(msgspec.Struct):
    """What a call names beside its body."""

    rollout_id: str


CALL = Method("a model call", "write", NamedRollout, None, lambda it: (), lambda it: [it.rollout_id], known=True)
LIST = Method("the list of models", "read", NamedRollout, None, lambda it: (), lambda it: [it.rollout_id], known=True)


class Access:
    """The server's keys, its limits of bodies, and whose rollouts are whose."""

    def __init__(self, grant: Callable[[Request], Grant], bodies: Bodies, run_of: RunOf) -> None:
        self.grant = grant
        self.bodies = bodies
        self._run_of = run_of

    async def rollout_of(self, request: Request, grant: Grant, method: Method) -> str | None:
        """The rollout that a request is for: its path names it, else the header `ROLLOUT_HEADER`, else the key, where
        that is for one alone; None where nothing does.

        Raises `RequestError` with 403 where the key is not for that: one for a run is for nothing but its rollouts.
        """
        named: str | None = request.path_params.get("rollout") or request.headers.get(ROLLOUT_HEADER) or grant.rollout
        if named is not None:
            await scope.refuse_what_is_not_granted(grant, method, NamedRollout(named), self._run_of)
        elif method.access == "write" and not grant.write:
            raise RequestError(403, f"this key may only read, and {method.name} needs one made with --write")
        elif method.access == "write" and grant.run is not None:
            raise RequestError(
                403, f"this key is for run {grant.run} alone: name one of its rollouts, in the path or {ROLLOUT_HEADER}"
            )
        return named


class Endpoint:
    """A route as an ASGI application: only for whoever has a key, and with every error as an answer that says it."""

    def __init__(self, access: Access, handle: Handle) -> None:
        self._access = access
        self._handle = handle

    async def __call__(self, asgi: Scope, receive: Receive, send: Send) -> None:
        request, reply = Request(asgi, receive), Reply(send)
        with suppress(ClientDisconnect):
            try:
                grant = self._access.grant(request)
            except RequestError as error:
                with suppress(TimeoutError):
                    await self._access.bodies.drain(request)
                await reply.problem(error.status, error)
                return
            await self._answer(request, grant, reply)

    async def _answer(self, request: Request, grant: Grant, reply: Reply) -> None:
        try:
            await self._handle(request, grant, reply)
        except RequestError as error:
            await reply.problem(error.status, error)
        except AdapterError as error:
            await reply.problem(422, error, "redirect_failed")
        except StoreError as error:
            await reply.problem(503, error)
        except ClientDisconnect:
            raise
        except Exception as error:
            logger.exception("%s %s failed", request.method, request.url.path)
            await reply.problem(500, ServerError(f"the server failed: {explain(error)}; its log says more"))


def json_object(request: Request, body: bytes) -> dict[str, Any]:
    """The body of a request. Raises `RequestError`: 415 for another content type, which also keeps pages of other sites
    from sending one, 400 where it is no JSON object."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise RequestError(415, f"expected a body of the content type {JSON}: set the header Content-Type")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"the body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(400, "the body is no JSON object")
    return value
