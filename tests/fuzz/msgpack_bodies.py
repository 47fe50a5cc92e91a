"""Has Schemathesis make bodies for the store: MessagePack of arguments that are right, nearly right, or none."""

from __future__ import annotations

import string
from typing import Any

import msgspec
import schemathesis
from hypothesis import strategies as st
from server.test_keys import ARGUMENTS

from agentlightning.records import encode

_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary()
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
_RIGHT = [msgspec.msgpack.decode(encode(make("run", "rollout"))) for make in ARGUMENTS.values()]
_NAMES = sorted({name for one in _RIGHT for name in one})


@st.composite
def _nearly_right(draw: st.DrawFn) -> dict[str, Any]:
    """The arguments of some method, with a field or two that hold anything."""
    arguments = dict(draw(st.sampled_from(_RIGHT)))
    for name in draw(st.lists(st.sampled_from(_NAMES), max_size=2)):
        arguments[name] = draw(_VALUES)
    return arguments


_BODIES = st.one_of(
    st.sampled_from(_RIGHT).map(msgspec.msgpack.encode),
    _nearly_right().map(msgspec.msgpack.encode),
    st.dictionaries(st.sampled_from([*_NAMES, *string.ascii_lowercase]), _VALUES).map(msgspec.msgpack.encode),
    st.binary(),
)
schemathesis.openapi.media_type("application/msgpack", _BODIES)
