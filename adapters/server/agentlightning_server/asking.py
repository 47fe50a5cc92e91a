"""How a server is asked, by every client of ours: with which key, for how long, and what its answer says."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx
import msgspec
import tenacity

from agentlightning.redaction import remember
from agentlightning_server import wire

PATIENCE_SECONDS = 60.0
"""How long a server is asked again that does not answer, before that is an error."""
FIRST_PATIENCE_SECONDS = 5.0
"""The same, as long as it has never answered: then the address may be wrong."""
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
"""How long an answer may take, beside what its request asks to wait."""
AGAIN_STATUSES = (429, 502, 503, 504)


class NoAnswerError(Exception):
    """The server could not be asked, or said that it can be asked again."""


class RefusedError(Exception):
    """The server has answered that it does not do it, with an HTTP status."""

    def __init__(self, problem: wire.Problem, status: int) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.status = status


def address(url: str) -> SplitResult | None:
    """A server's address; None where it is none, or holds what it should not: a key is given in a variable."""
    parts = urlsplit(url)
    fits = parts.scheme in ("http", "https") and parts.hostname
    return None if not fits or parts.username or parts.password or parts.query else parts


def client_options(parts: SplitResult, key: str | None) -> dict[str, Any]:
    """What httpx's clients are made with. The key is a secret from now on (`agentlightning.redaction`)."""
    remember(key)
    return {
        "base_url": parts.geturl().rstrip("/"),
        "headers": {} if key is None else {"authorization": f"Bearer {key}"},
        "verify": parts.scheme == "https",  # to read every certificate of this machine takes longer than a request
        "trust_env": parts.hostname not in wire.LOOPBACK,
    }


def again(patience: float) -> dict[str, Any]:
    """How tenacity asks again where there is no answer: for so many seconds, after pauses that grow and differ."""
    return {
        "retry": tenacity.retry_if_exception_type(NoAnswerError),
        "stop": tenacity.stop_after_delay(patience),
        "wait": tenacity.wait_random_exponential(multiplier=0.1, max=5.0),
        "reraise": True,
    }


def no_answer(error: httpx.HTTPError) -> NoAnswerError:
    """A request that came to nothing."""
    return NoAnswerError(f"{type(error).__name__}{': ' if str(error) else ''}{error}")


def content_of(response: httpx.Response) -> bytes:
    """The body of an answer. Raises `NoAnswerError` and `RefusedError`."""
    if response.is_success:
        return response.content
    try:
        problem = msgspec.json.decode(response.content, type=wire.Problem)
    except msgspec.MsgspecError:
        what = f"{response.request.method} {response.request.url.path}"
        problem = wire.Problem(
            "", f"{response.request.url.host} answered {response.status_code} to {what}: is it a Lightning Server?"
        )
    if response.status_code in AGAIN_STATUSES:
        raise NoAnswerError(problem.message)
    raise RefusedError(problem, response.status_code)
