"""The methods of a store over HTTP, in one table that the server and its clients read.

What a method takes and gives is what `agentlightning.store.base.Store` says, turned into types for the wire; the table
adds who may call it: whether it reads or writes, and which runs and rollouts its arguments name.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Any, Literal, Union

import msgspec

from agentlightning.store.base import Store

Access = Literal["read", "write"]
Named = Callable[[Any], Iterable[str]]
"""The ids that a method's arguments name."""


@dataclass(frozen=True)
class Method:
    """One method of a store.

    ``arguments`` is the struct that a request's body holds, ``result`` the type of what an answer's body holds.
    ``known`` says that each rollout named must be there: what is written would otherwise wait for somebody's rollout.
    ``narrow`` changes the arguments so that they reach no other run than the one given; ``shown`` leaves in the result
    what is of that run.
    """

    name: str
    access: Access
    arguments: type[msgspec.Struct]
    result: Any
    runs: Named
    rollouts: Named
    known: bool = False
    narrow: Callable[[Any, str], None] | None = None
    shown: Callable[[Any, str], Any] | None = None


def _nothing(arguments: Any) -> Iterable[str]:
    return ()


def _method(
    name: str,
    access: Access,
    *,
    runs: Named = _nothing,
    rollouts: Named = _nothing,
    extra: Iterable[tuple[str, Any, Any]] = (),
    **more: Any,
) -> Method:
    """``extra`` are fields of the request that are no arguments of the method: name, type and default."""
    function = getattr(Store, name)
    hints = typing.get_type_hints(function)
    fields: list[Any] = [
        (parameter.name, _listed(hints[parameter.name]), *_default(parameter))
        for parameter in signature(function).parameters.values()
        if parameter.name != "self"
    ]
    arguments = msgspec.defstruct(
        f"{name}_arguments", [*fields, *extra], kw_only=True, omit_defaults=True, forbid_unknown_fields=True
    )
    result = _listed(hints["return"])
    return Method(name, access, arguments, result, runs, rollouts, **more)


def _default(parameter: Parameter) -> tuple[Any, ...]:
    return () if parameter.default is Parameter.empty else (parameter.default,)


def _listed(hint: Any) -> Any:
    """The type with lists for whatever may be iterated over: on the wire it is one."""
    if typing.get_origin(hint) is Iterable:
        return list[typing.get_args(hint)]  # type: ignore[misc]
    if isinstance(hint, UnionType):
        return Union[tuple(map(_listed, typing.get_args(hint)))]  # noqa: UP007 - of types known at run time only
    return NoneType if hint is None else hint


def _of_worker(arguments: Any, run: str) -> None:
    """A worker's name is its own among those of the same key: nobody renews the leases of another run's."""
    arguments.worker = f"{run}: {arguments.worker}"


def _lease_of(arguments: Any, run: str) -> None:
    _of_worker(arguments, run)
    arguments.run_id = run


def _run_id(arguments: Any) -> Iterable[str]:
    return () if arguments.run_id is None else (arguments.run_id,)


_TABLE = (
    _method("open_run", "write", runs=lambda it: [it.run.id]),
    _method("update_run", "write", runs=lambda it: [it.run.id]),
    _method("close_run", "write", runs=_run_id),
    _method("runs", "read", shown=lambda result, run: [one for one in result if one.id == run]),
    _method("run", "read", runs=_run_id),
    _method("add_tasks", "write", runs=_run_id),
    _method("tasks", "read", runs=_run_id),
    _method(
        "enqueue",
        "write",
        runs=lambda it: {one.run_id for one in it.rollouts},
        rollouts=lambda it: [one.id for one in it.rollouts],
    ),
    _method(
        "lease",
        "write",
        runs=_run_id,
        rollouts=lambda it: it.ids or (),
        narrow=_lease_of,
        extra=[("held", list[str], [])],
    ),
    _method("heartbeat", "write", narrow=_of_worker),
    _method("finish", "write", rollouts=lambda it: [it.rollout.id]),
    _method("wait", "read", rollouts=lambda it: it.ids),
    _method("add_rewards", "write", rollouts=lambda it: [it.rollout_id]),
    _method(
        "add_recorded",
        "write",
        runs=lambda it: [it.run.id],
        rollouts=lambda it: [one.rollout.id for one in it.recorded],
    ),
    _method("rollouts", "read", runs=_run_id),
    _method("summary", "read", runs=_run_id),
    _method("tries", "read", runs=_run_id),
    _method("wait_for_ended", "read", runs=_run_id),
    _method("rollout", "read", rollouts=lambda it: [it.rollout_id]),
    _method("rollout_with_spans", "read", rollouts=lambda it: [it.rollout_id]),
    _method("add_spans", "write", rollouts=lambda it: {one.rollout_id for one in it.spans}, known=True),
    _method("spans", "read", rollouts=lambda it: [it.rollout_id]),
    _method("add_metrics", "write", runs=lambda it: {one.run_id for one in it.metrics}),
    _method("metrics", "read", runs=_run_id),
    _method("flush", "write"),
    _method("put_resource", "write", runs=_run_id),
    _method("resources", "read", runs=_run_id),
    _method("resource", "read", runs=_run_id),
    _method(
        "promotions",
        "read",
        runs=lambda it: () if it.target is None else (it.target,),
        shown=lambda result, run: [one for one in result if one.target == run],
    ),
    _method("put_promotions", "write", runs=lambda it: {it.target, *(one.target for one in it.promotions)}),
    _method("wait_for_promotions", "read", runs=lambda it: [it.target]),
    _method("put_checkpoint", "write", runs=lambda it: [it.checkpoint.run_id]),
    _method("last_checkpoint", "read", runs=_run_id),
)
METHODS = {method.name: method for method in _TABLE}
"""By name. ``close`` is the end of a session, and ``published`` is made of others."""


class Feedback(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a user thinks of a rollout, or of the response that a call of its got: a score, or a thumb. One of a user
    replaces that user's last. A response is named by the id that the client saw."""

    rollout_id: str | None = None
    response_id: typing.Annotated[str, msgspec.Meta(min_length=1, max_length=1000)] | None = None
    score: float | None = None
    thumbs: Literal["up", "down"] | None = None
    comment: typing.Annotated[str, msgspec.Meta(max_length=10_000)] | None = None
    user: typing.Annotated[str, msgspec.Meta(max_length=200)] | None = None


FEEDBACK = Method("feedback", "write", Feedback, None, _nothing, lambda it: [it.rollout_id or ""])
