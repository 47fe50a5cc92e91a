"""The trainings of a server, from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
import tenacity

from agentlightning.redaction import remember
from agentlightning_server import wire
from agentlightning_server.errors import ServerError
from agentlightning_server.training.records import Submission, Training, TrainingAnswer, Trainings

T = TypeVar("T")

SUBMIT_SECONDS = 150.0
"""The server tries to load what a config names, one after the other."""
ANSWER_SECONDS = 30.0
CONNECT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
"""How long a server is asked again that has answered before, and does not now."""
FIRST_PATIENCE_SECONDS = 5.0
"""The same, as long as it has not answered: then the address may be wrong."""
AGAIN_STATUSES = (429, 502, 503, 504)


class _NoAnswerError(Exception):
    pass


class TrainingClient:
    """Asks the server at ``url``, with the key in ``AGL_SERVER_KEY``. Raises `ServerError`: there is none, or it
    refuses."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ServerError(
                f"--server: expected http://HOST:PORT or https://HOST; a key is given in {wire.KEY_VARIABLE}"
            )
        key = os.environ.get(wire.KEY_VARIABLE) or None
        remember(key)
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={} if key is None else {"authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            verify=parts.scheme == "https",
            trust_env=parts.hostname not in wire.LOOPBACK,
        )

    def submit(self, submission: Submission) -> Training:
        """Raises `ServerError` where the server cannot train it."""
        body = msgspec.json.encode(submission)
        if len(body) > wire.MAX_BODY_BYTES:
            raise ServerError(
                f"the tasks are {len(body) // 1024**2} MiB, and a server takes {wire.MAX_BODY_BYTES // 1024**2}: set "
                "tasks.limit, or train on the server's own machine"
            )
        asked = partial(self._ask_once, "POST", "/v1/training", Training, body, seconds=SUBMIT_SECONDS)
        return self._ask_again(asked, FIRST_PATIENCE_SECONDS)  # its id is in it: sent again, it is the same

    def all(self) -> list[Training]:
        return self._ask("GET", "/v1/training", Trainings).trainings

    def show(self, id: str) -> TrainingAnswer:
        """A training, and the last lines of its log."""
        return self._ask("GET", f"/v1/training/{id}", TrainingAnswer)

    def stop(self, id: str) -> Training:
        return self._ask("POST", f"/v1/training/{id}/stop", Training, b"{}")

    def resume(self, id: str) -> Training:
        return self._ask("POST", f"/v1/training/{id}/resume", Training, b"{}")

    def follow(self, id: str, *, after: int = 0, wait: bool = True) -> Iterator[TrainingAnswer]:
        """Its log from a byte on, part by part; with ``wait`` as it comes, until the training has ended. A server that
        has answered, and does not any more, is asked again for a minute."""
        patience = FIRST_PATIENCE_SECONDS
        while True:
            query = {"after": after, "wait": wire.WAIT_SECONDS if wait else 0}
            asked = partial(self._ask_once, "GET", f"/v1/training/{id}", TrainingAnswer, query=query)
            answer = self._ask_again(asked, patience)
            patience, after = PATIENCE_SECONDS, answer.next
            yield answer
            if not answer.log and not (wait and answer.training.active):
                return

    def _ask(self, verb: str, path: str, kind: type[T], body: bytes | None = None) -> T:
        """Once: to be asked to stop a second time is something else."""
        return self._ask_again(partial(self._ask_once, verb, path, kind, body), 0)

    def _ask_again(self, asked: Callable[[], T], patience: float) -> T:
        asking = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_NoAnswerError),
            stop=tenacity.stop_after_delay(patience),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5.0),
            reraise=True,
        )
        try:
            return asking(asked)
        except _NoAnswerError as error:
            message = f"the Lightning Server at {self.url} does not answer ({error}): see whether it runs"
            raise ServerError(message) from None

    def _ask_once(
        self,
        verb: str,
        path: str,
        kind: type[T],
        body: bytes | None = None,
        *,
        query: Mapping[str, float] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> T:
        headers = {} if body is None else {"content-type": "application/json"}
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        try:
            response = self._http.request(verb, path, content=body, params=query, headers=headers, timeout=timeout)
        except httpx.HTTPError as error:
            raise _NoAnswerError(f"{type(error).__name__}{': ' if str(error) else ''}{error}") from None
        try:
            if response.is_success:
                return msgspec.json.decode(response.content, type=kind)
            problem = msgspec.json.decode(response.content, type=wire.Problem).message
        except msgspec.MsgspecError:
            problem = f"{self.url} answered {response.status_code} to {verb} {path}: is it a Lightning Server?"
        if response.status_code in AGAIN_STATUSES:
            raise _NoAnswerError(problem)
        raise ServerError(problem)
