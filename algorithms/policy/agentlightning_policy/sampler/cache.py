"""Keys and values that are kept: a prefix tree of what was computed, and what each running row has of its own.

Axes: L layers, S slots, K key-value heads, C capacity in tokens, n tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

GROWTH = 64
"""A decode cache grows by multiples of this many tokens."""


@dataclass(frozen=True)
class Shape:
    """What the keys and values of one token look like."""

    layers: int
    heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values over all layers."""
        return self.layers * self.heads * (self.key_size + self.value_size) * self.dtype.itemsize

    def empty(self, *lead: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for keys and values: (L, *lead, K, tokens, D)."""
        sizes = (self.layers, *lead, self.heads, tokens)
        return (
            torch.empty(*sizes, self.key_size, dtype=self.dtype, device=self.device),
            torch.empty(*sizes, self.value_size, dtype=self.dtype, device=self.device),
        )


class Segment:
    """Keys and values of consecutive tokens, (L, K, n, D) each; never changed once computed."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys = keys
        self.values = values

    def __len__(self) -> int:
        return self.keys.shape[2]

    def split(self, at: int) -> tuple[Segment, Segment]:
        """The first ``at`` tokens, and the rest: views."""
        return (
            Segment(self.keys[:, :, :at], self.values[:, :, :at]),
            Segment(self.keys[:, :, at:], self.values[:, :, at:]),
        )

    def copy(self) -> Segment:
        """The same, with memory of its own."""
        return Segment(self.keys.clone(), self.values.clone())


class Node:
    """An edge of the prefix tree: some tokens, and their segment once it is computed.

    ``rows`` counts the running or admitted rows whose prompt passes through; such a node is not evicted.
    """

    __slots__ = ("children", "parent", "rows", "segment", "tokens", "used")

    def __init__(self, tokens: np.ndarray, parent: Node | None) -> None:
        self.tokens = tokens
        self.parent = parent
        self.children: dict[int, Node] = {}
        self.segment: Segment | None = None
        self.rows = 0
        self.used = 0

    def path(self) -> list[Node]:
        """The nodes from below the root down to this one."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class PrefixTree:
    """Which token sequences have keys and values, sharing what they have in common.

    At most ``budget`` tokens stay; the leaves that were used longest ago go first.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.clear()

    def clear(self) -> None:
        """Forgets everything (the weights have changed)."""
        self.root = Node(np.empty(0, np.int32), None)
        self.tokens = 0
        self._clock = 0

    def extend(self, ids: np.ndarray, start: Node | None = None) -> Node:
        """The node at which ``ids`` (after those of ``start``) end. What is not known yet becomes a node
        without a segment, for the caller to compute."""
        self._clock += 1
        node = start or self.root
        at = 0
        while at < len(ids):
            child = node.children.get(int(ids[at]))
            if child is None:
                child = Node(ids[at:], node)
                node.children[int(ids[at])] = child
                self.tokens += len(child.tokens)
            shared = _shared_length(child.tokens, ids[at:])
            node = child if shared == len(child.tokens) else _split(child, shared)
            node.used = self._clock
            at += shared
        return node

    def evict(self) -> None:
        """Keeps the tree within its budget."""
        while self.tokens > self.budget:
            leaves = [
                node for node in self._nodes() if not node.children and not node.rows and node.segment is not None
            ]
            if not leaves:
                return
            for leaf in sorted(leaves, key=lambda node: node.used):
                self._remove(leaf)
                if self.tokens <= self.budget:
                    return

    def _remove(self, node: Node) -> None:
        if node.parent is not None:
            node.parent.children.pop(int(node.tokens[0]), None)
            self.tokens -= len(node.tokens)

    def _nodes(self) -> Iterator[Node]:
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())


def _shared_length(left: np.ndarray, right: np.ndarray) -> int:
    size = min(len(left), len(right))
    different = np.flatnonzero(left[:size] != right[:size])
    return int(different[0]) if len(different) else size


def _split(node: Node, at: int) -> Node:
    """Puts a new node above ``node`` for its first tokens; ``node`` itself keeps its end, so who holds it
    still holds the same sequence."""
    upper = Node(node.tokens[:at], node.parent)
    upper.rows = node.rows
    upper.children[int(node.tokens[at])] = node
    if node.parent is not None:
        node.parent.children[int(node.tokens[0])] = upper
    node.parent = upper
    node.tokens = node.tokens[at:]
    if node.segment is not None:
        above, node.segment = node.segment.split(at)
        upper.segment = above.copy()  # which else would hold on to the memory of both when the rest is evicted
    return upper


class DecodeCache:
    """The keys and values that each running row has of its own, rows 0 … B-1 side by side so that one step
    reads them without a gather: (L, S, K, C, D). ``most`` rows run at once."""

    def __init__(self, shape: Shape, most: int) -> None:
        self._shape = shape
        self._most = most
        self.lengths: list[int] = []
        self.keys, self.values = shape.empty(0, tokens=0)

    def add(self, segments: Sequence[Segment]) -> None:
        """A row more, that begins with a copy of ``segments``."""
        row, length = len(self.lengths), sum(map(len, segments))
        self.reserve(row + 1, length)
        self.lengths.append(length)
        at = 0
        for segment in segments:
            self.keys[:, row, :, at : at + len(segment)] = segment.keys
            self.values[:, row, :, at : at + len(segment)] = segment.values
            at += len(segment)

    def remove(self, row: int) -> None:
        """A row less; the last one moves into its place."""
        last = len(self.lengths) - 1
        length = self.lengths.pop()
        if row != last:
            self.keys[:, row, :, :length] = self.keys[:, last, :, :length]
            self.values[:, row, :, :length] = self.values[:, last, :, :length]
            self.lengths[row] = length

    def copy(self, row: int, start: int) -> Segment:
        """What a row has from its ``start``-th own token on, as a segment."""
        end = self.lengths[row]
        return Segment(self.keys[:, row, :, start:end].clone(), self.values[:, row, :, start:end].clone())

    def clear(self) -> None:
        """No rows."""
        self.lengths = []
        self.keys, self.values = self._shape.empty(0, tokens=0)

    def reserve(self, slots: int, tokens: int) -> None:
        """Makes room for that many rows of that many tokens."""
        held_slots, held_tokens = self.keys.shape[1], self.keys.shape[3]
        if slots <= held_slots and tokens <= held_tokens:
            return
        slots = held_slots if slots <= held_slots else max(slots, min(max(4, 2 * held_slots), self._most))
        tokens = held_tokens if tokens <= held_tokens else -(-tokens // GROWTH) * GROWTH
        self.keys = self._grown(self.keys, slots, tokens)
        self.values = self._grown(self.values, slots, tokens)

    def _grown(self, held: torch.Tensor, slots: int, tokens: int) -> torch.Tensor:
        layers, _, heads, _, size = held.shape
        # what is masked must be finite all the same: 0 · NaN is NaN
        grown = held.new_zeros(layers, slots, heads, tokens, size)
        rows, used = len(self.lengths), max(self.lengths, default=0)
        grown[:, :rows, :, :used] = held[:, :rows, :, :used]
        return grown
