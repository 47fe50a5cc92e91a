"""Who may do what: one key for everything, and signed keys for one run or one rollout, until a time."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

from agentlightning.redaction import remember
from agentlightning_server.errors import RequestError, ServerError
from agentlightning_server.wire import KEY_VARIABLE

MIN_KEY_LENGTH = 16
_ALGORITHM = "HS256"


@dataclass(frozen=True)
class Grant:
    """What a key allows: all runs, the one named, or one rollout alone; to read, or to write as well."""

    run: str | None = None
    write: bool = True
    rollout: str | None = None


EVERYTHING = Grant()


class Keys:
    """The admin key of a server, and what is signed with it. None: everybody may do everything.

    Raises `ServerError` where the key is too short to be one.
    """

    def __init__(self, admin: str | None) -> None:
        if admin is not None and len(admin) < MIN_KEY_LENGTH:
            raise ServerError(
                f"the key in {KEY_VARIABLE} is shorter than {MIN_KEY_LENGTH} characters: make one with "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        remember(admin)
        self._admin = None if admin is None else admin.encode()

    @property
    def required(self) -> bool:
        return self._admin is not None

    def issue(self, run: str, *, write: bool, seconds: float) -> str:
        """A key for one run, for so many seconds. Whoever has it may read the run, or ``write`` it as well."""
        return self._issue({"run": run}, write, seconds)

    def issue_for_rollout(self, rollout: str, *, write: bool, seconds: float) -> str:
        """The same for one rollout alone."""
        return self._issue({"rollout": rollout}, write, seconds)

    def _issue(self, named: dict[str, str], write: bool, seconds: float) -> str:
        if self._admin is None:
            raise ServerError(f"keys are signed with the server's own: set {KEY_VARIABLE} to the same value as there")
        claims = {**named, "write": write, "exp": int(time.time() + seconds)}
        return jwt.encode(claims, _signing(self._admin), algorithm=_ALGORITHM)

    def grant(self, authorization: str | None) -> Grant:
        """What the header ``Authorization`` allows. Raises `RequestError` with 401 where it is nothing."""
        if self._admin is None:
            return EVERYTHING
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise RequestError(401, f"a key is missing: set {KEY_VARIABLE}, or send Authorization: Bearer KEY")
        if hmac.compare_digest(key.encode(errors="replace"), self._admin):
            return EVERYTHING
        return self._scoped(key, _signing(self._admin))

    def _scoped(self, key: str, signing: bytes) -> Grant:
        try:
            claims: dict[str, Any] = jwt.decode(
                key, signing, algorithms=[_ALGORITHM], options={"require": ["exp"], "verify_exp": False}
            )
            run, rollout = claims.get("run"), claims.get("rollout")
            write, expires = claims["write"], float(claims["exp"])
            if (run is None) == (rollout is None):
                raise KeyError("run")
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
            raise RequestError(401, f"the server does not know this key: see what {KEY_VARIABLE} is set to") from None
        if expires <= time.time():
            at = datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds")
            named = f"--run {run}" if rollout is None else f"--rollout {rollout}"
            raise RequestError(401, f"this key expired at {at}: make another with agl server-key {named}")
        return Grant(run=run, write=write is True, rollout=rollout)


def _signing(admin: bytes) -> bytes:
    """The key that others are signed with; a new admin key ends them all."""
    return hashlib.sha256(b"agentlightning server keys\0" + admin).digest()
