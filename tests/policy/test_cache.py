"""The prefix tree: what is known is shared, what is used stays."""

from __future__ import annotations

import numpy as np
import torch

from agentlightning_policy.sampler.cache import DecodeCache, Node, PrefixTree, Segment, Shape


def ids(text: str) -> np.ndarray:
    return np.array([ord(letter) for letter in text], np.int32)


def compute(node: Node) -> Node:
    """Gives each pending node on the way a segment that holds its token ids."""
    for each in node.path():
        if each.segment is None:
            keys = torch.tensor(each.tokens, dtype=torch.float32)[None, None, :, None]
            each.segment = Segment(keys, keys.clone())
    return node


def text(node: Node) -> str:
    return "".join(chr(int(value)) for each in node.path() for value in each.segment.keys.flatten())  # type: ignore


def test_a_common_beginning_is_kept_once() -> None:
    tree = PrefixTree(1000)
    first = compute(tree.extend(ids("system one")))
    second = compute(tree.extend(ids("system two")))
    assert tree.tokens == len("system one" + "two")
    assert (text(first), text(second)) == ("system one", "system two")
    assert first.path()[0] is second.path()[0]


def test_what_is_known_is_found_and_only_the_rest_is_pending() -> None:
    tree = PrefixTree(1000)
    compute(tree.extend(ids("abcdef")))
    inside = tree.extend(ids("abc"))
    longer = tree.extend(ids("abcdefgh"))
    assert text(inside) == "abc"
    assert [node.segment is None for node in longer.path()] == [False, False, True]


def test_a_node_that_is_held_keeps_its_sequence_when_it_is_split() -> None:
    tree = PrefixTree(1000)
    held = compute(tree.extend(ids("abcdef")))
    held.rows = 1
    tree.extend(ids("abcx"))
    assert text(held) == "abcdef"
    assert [node.rows for node in held.path()] == [1, 1]


def test_the_leaves_used_longest_ago_go_first_and_held_ones_never() -> None:
    tree = PrefixTree(10)
    held = compute(tree.extend(ids("hhhh")))
    held.rows = 1
    for word in ("aaaa", "bbbb", "cccc"):
        compute(tree.extend(ids(word)))
    tree.extend(ids("aaaa"))
    tree.evict()
    assert {chr(token) for token in tree.root.children} == {"h", "a"}
    assert tree.tokens == 8


def test_tails_keep_each_row_its_own_when_rows_come_and_go() -> None:
    cache = DecodeCache(Shape(1, 1, 1, 1, torch.float32, torch.device("cpu")), 64)
    words = ["first", "a second one", "third " * 20]
    for word in words:
        cache.add([compute(PrefixTree(999).extend(ids(word))).segment])  # type: ignore[list-item]
    cache.remove(0)
    kept = ["".join(chr(int(value)) for value in cache.copy(row, 0).values.flatten()) for row in (0, 1)]
    assert kept == [words[2], words[1]]
    assert "".join(chr(int(value)) for value in cache.copy(1, 2).keys.flatten()) == "second one"
