"""Methods of somebody else's classes, wrapped and put back."""

from __future__ import annotations

from typing import Any

import pytest

from agentlightning.patching import Patches


class Greeter:
    def greet(self) -> str:
        return "hello"

    def leave(self) -> str:
        return "bye"


def twice(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> str:
    return f"{wrapped(*args, **kwargs)} {wrapped(*args, **kwargs)}"


def test_a_method_is_wrapped_once_and_others_may_be_added_later():
    before = dict(vars(Greeter))
    patches = Patches()
    patches.add((Greeter, "greet", twice))
    patches.add((Greeter, "greet", twice), (Greeter, "leave", twice))
    assert (Greeter().greet(), Greeter().leave()) == ("hello hello", "bye bye")
    patches.remove()
    assert dict(vars(Greeter)) == before
    assert not patches.in_place


def test_where_one_of_several_is_missing_none_is_wrapped():
    patches = Patches()
    with pytest.raises(AttributeError, match="Greeter defines no sing"):
        patches.add((Greeter, "greet", twice), (Greeter, "sing", twice))
    assert Greeter().greet() == "hello"
    assert not patches.in_place
