"""The trainings of a server, from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import httpx
import msgspec
import tenacity

from agentlightning_server import asking, wire
from agentlightning_server.errors import ServerError
from agentlightning_server.training.records import Submission, Training, TrainingAnswer, Trainings

T = TypeVar("T")

SUBMIT_SECONDS = 150.0
"""The server tries to load what a config names, one after the other."""


class TrainingClient:
    """Asks the server at ``url``, with the key in ``AGL_SERVER_KEY``. Raises `ServerError`: there is none, or it
    refuses."""

    def __init__(self, url: str) -> None:
        parts = asking.address(url)
        if parts is None:
            raise ServerError(
                f"--server: expected http://HOST:PORT or https://HOST; a key is given in {wire.KEY_VARIABLE}"
            )
        self.url = url.rstrip("/")
        self._http = httpx.Client(**asking.client_options(parts, os.environ.get(wire.KEY_VARIABLE) or None))

    def submit(self, submission: Submission) -> Training:
        """Raises `ServerError` where the server cannot train it."""
        body = msgspec.json.encode(submission)
        if len(body) > wire.MAX_BODY_BYTES:
            raise ServerError(
                f"the tasks are {len(body) // 1024**2} MiB, and a server takes {wire.MAX_BODY_BYTES // 1024**2}: set "
                "tasks.limit, or train on the server's own machine"
            )
        asked = partial(self._ask_once, "POST", "/v1/training", Training, body, seconds=SUBMIT_SECONDS)
        return self._ask_again(asked, asking.FIRST_PATIENCE_SECONDS)  # its id is in it: sent again, it is the same

    def all(self) -> list[Training]:
        return self._ask("GET", "/v1/training", Trainings).trainings

    def show(self, id: str) -> TrainingAnswer:
        """A training, and the last lines of its log."""
        return self._ask("GET", f"/v1/training/{id}", TrainingAnswer)

    def stop(self, id: str) -> Training:
        return self._ask("POST", f"/v1/training/{id}/stop", Training, b"{}")

    def resume(self, id: str) -> Training:
        return self._ask("POST", f"/v1/training/{id}/resume", Training, b"{}")

    def delete(self, id: str) -> Training:
        return self._ask("DELETE", f"/v1/training/{id}", Training)

    def follow(self, id: str, *, after: int = 0, wait: bool = True) -> Iterator[TrainingAnswer]:
        """Its log from a byte on, part by part; with ``wait`` as it comes, until the training has ended. A server that
        has answered, and does not any more, is asked again for a minute."""
        patience = asking.FIRST_PATIENCE_SECONDS
        while True:
            query = {"after": after, "wait": wire.WAIT_SECONDS if wait else 0}
            asked = partial(self._ask_once, "GET", f"/v1/training/{id}", TrainingAnswer, query=query)
            answer = self._ask_again(asked, patience)
            patience, after = asking.PATIENCE_SECONDS, answer.next
            yield answer
            if not answer.log and not (wait and answer.training.active):
                return

    def _ask(self, verb: str, path: str, kind: type[T], body: bytes | None = None) -> T:
        """Once: to be asked to stop a second time is something else."""
        return self._ask_again(partial(self._ask_once, verb, path, kind, body), 0)

    def _ask_again(self, asked: Callable[[], T], patience: float) -> T:
        try:
            return tenacity.Retrying(**asking.again(patience))(asked)
        except asking.NoAnswerError as error:
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
        seconds: float = asking.ANSWER_SECONDS,
    ) -> T:
        headers = {} if body is None else {"content-type": "application/json"}
        timeout = httpx.Timeout(seconds, connect=asking.CONNECT_SECONDS)
        try:
            response = self._http.request(verb, path, content=body, params=query, headers=headers, timeout=timeout)
        except httpx.HTTPError as error:
            raise asking.no_answer(error) from None
        try:
            return msgspec.json.decode(asking.content_of(response), type=kind)
        except msgspec.MsgspecError:
            raise ServerError(f"{self.url} answers, and is no Lightning Server: check the address") from None
        except asking.RefusedError as error:
            raise ServerError(str(error)) from None
