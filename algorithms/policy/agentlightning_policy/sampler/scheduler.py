"""Continuous batching: a thread that takes requests as they come and gives every running one a token per step."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from agentlightning.sampler import SampledToken, SamplerUnavailableError, SamplingParams
from agentlightning_policy.compute import compute
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.sampler.attention import (
    AttentionStep,
    PrefillSegment,
    SharedPrefix,
    inference_view,
    probe_kv_shape,
)
from agentlightning_policy.sampler.cache import DecodeCache, Node, PrefixTree, Segment
from agentlightning_policy.sampler.packed import pack_linears
from agentlightning_policy.sampler.sampling import draw, random_source

logger = logging.getLogger(__name__)

PREFILL = 2048
"""Prompt tokens that one step takes in, at most (one longer prompt goes alone)."""
WORTH_SHARING = 512
"""Key reads per step that a shared segment must save before rows attend to one copy of it."""
RUNNING_BYTES = 2**30
"""How much the keys and values of running rows may come to beyond what the prefix tree keeps between calls: in their
tails, and as much again in the tree. Where more than that is kept, as much as is kept."""
LEAST_TAIL = 256
"""A tail of fewer tokens is never cut. Every row has room for a tail as long as the longest, so that the limit is what
`RUNNING_BYTES` gives each of the rows that may run at once, or this where it is more."""


@dataclass(eq=False)
class SequenceState:
    """One request's prompt and the tokens sampled for it so far.

    ``notify`` is called from the scheduler's thread: after every token when ``params.stream``, and when the sequence
    ends, ``finished`` or with an ``error``.
    """

    prompt: np.ndarray
    params: SamplingParams
    notify: Callable[[], object]
    tokens: list[SampledToken] = field(default_factory=list)
    finished: bool = False
    error: Exception | None = None
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.random = random_source(self.params)

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.finished or self.error is not None

    def written(self) -> np.ndarray:
        """Prompt and answer so far, as ids."""
        return np.concatenate([self.prompt, np.array([token.id for token in self.tokens], np.int32)])


@dataclass
class Stats:
    """What the sampler has done since it started. Tokens ``computed`` are prompt tokens that no cache held."""

    requests: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    cancelled: int = 0
    failed: int = 0


@dataclass(eq=False)
class _Row:
    sequence: SequenceState
    node: Node
    """Where the prefix tree ends for this row: all written tokens but the last, when it was admitted."""
    known: int
    """Tokens up to that node."""
    start: int = 0
    """Position at which the row's tail begins."""
    shared: list[Segment] = field(default_factory=list)


class Scheduler:
    """Runs the policy for many requests at once."""

    def __init__(
        self,
        policy: PolicyModel,
        *,
        max_batch: int,
        cache_memory: int,
        pack_weights: bool,
    ) -> None:
        self.stats = Stats()
        self._policy = policy
        self._max_batch = max_batch
        self._module = inference_view(policy.module, policy.base)
        self._linears = pack_linears(self._module) if pack_weights else []
        compute(self._pack)
        self._shape = compute(probe_kv_shape, self._module, policy.device)
        self._tree = PrefixTree(cache_memory // self._shape.bytes_per_token)
        self._room = max(cache_memory, RUNNING_BYTES) // self._shape.bytes_per_token
        self._longest_tail = max(LEAST_TAIL, self._room // max_batch)
        self._cache = DecodeCache(self._shape, max_batch)
        self._version = policy.version
        self._rows: list[_Row] = []
        self._shared: list[SharedPrefix] | None = None
        self._waiting: deque[SequenceState] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="agentlightning-sampler", daemon=True)

    def start(self) -> None:
        """Begins to take requests."""
        self._thread.start()

    def submit(self, *sequences: SequenceState) -> None:
        """Hands in requests, together. Raises `SamplerUnavailableError` after `close`."""
        with self._ready:
            if self._closing:
                raise SamplerUnavailableError("the engine is shutting down")
            self._waiting.extend(sequences)
            self.stats.requests += len(sequences)
            self._ready.notify()

    def cancel(self, sequence: SequenceState) -> None:
        """Nobody waits for this answer any more."""
        with self._ready:
            sequence.cancelled = True
            self._ready.notify()

    def close(self) -> None:
        """Fails what is not finished with `SamplerUnavailableError`, and ends the thread."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._closing or self._waiting or self._rows)
                if self._closing:
                    break
            compute(self._next)
        error = SamplerUnavailableError("the engine is shutting down")
        for sequence in [*(row.sequence for row in self._rows), *self._waiting]:
            _fail(sequence, error)
        self._rows.clear()
        self._waiting.clear()

    @torch.inference_mode()
    def _next(self) -> None:
        self._forget_cancelled()
        if self._rows or self._waiting:
            self._try_step()

    def _forget_cancelled(self) -> None:
        with self._ready:
            gone = [sequence for sequence in self._waiting if sequence.cancelled]
            for sequence in gone:
                self._waiting.remove(sequence)
        self.stats.cancelled += len(gone)
        for index in reversed(range(len(self._rows))):
            if self._rows[index].sequence.cancelled:
                self.stats.cancelled += 1
                self._leave(index)

    def _try_step(self) -> None:
        admitted: list[_Row] = []
        try:
            with self._policy.reading() as version:
                if version != self._version:
                    self._start_over(version)
                self._admit(admitted)
                self._step(admitted)
        except Exception as error:
            logger.exception("a step of the sampler failed; the requests in it fail with it")
            rows = list({id(row): row for row in [*self._rows, *admitted]}.values())
            self._rows.clear()
            self._reset()
            self.stats.failed += len(rows)
            for row in rows:
                _fail(row.sequence, error)

    def _start_over(self, version: int) -> None:
        """The weights have changed: what is running is computed again from its tokens, which stay."""
        self._version = version
        with self._ready:
            self._waiting.extendleft(row.sequence for row in reversed(self._rows))
        self._rows.clear()
        self._reset()
        self._pack()

    def _pack(self) -> None:
        for linear in self._linears:
            linear.refresh()

    def _reset(self) -> None:
        self._tree.clear()
        self._cache.clear()
        self._shared = None

    def _admit(self, admitted: list[_Row]) -> None:
        """Takes waiting requests in, in their order, as far as there is room."""
        before = self._tree.tokens
        while len(self._rows) + len(admitted) < self._max_batch and self._tree.tokens - before < PREFILL:
            if (self._rows or admitted) and self._tree.tokens > self._tree.budget + self._room:
                break
            with self._ready:
                if not self._waiting:
                    break
                sequence = self._waiting.popleft()
            ids = sequence.written()[:-1]
            row = _Row(sequence, self._tree.root, len(ids))
            admitted.append(row)
            row.node = self._tree.extend(ids)
            for node in row.node.path():
                node.rows += 1
            self.stats.prompt_tokens += len(ids)
        self.stats.computed_tokens += self._tree.tokens - before

    def _step(self, admitted: list[_Row]) -> None:
        self._cache.reserve(len(self._rows) + len(admitted), 0)
        late = []
        for row in admitted:
            if all(node.segment is not None for node in row.node.path()):
                self._join(row)
            else:
                late.append(row)
        prefill, ids, positions = self._lay_out(late)
        if self._rows or prefill:
            sampled = self._forward(prefill, ids, positions)
            for row in late:
                self._join(row)
            self._deliver(sampled)
            self._shorten()
        self._tree.evict()
        self.stats.steps += 1

    def _lay_out(self, late: list[_Row]) -> tuple[list[PrefillSegment], list[int], list[int]]:
        """The packed tokens of a pass with their positions, and the segments to compute, ancestors first."""
        ids = [
            row.sequence.tokens[-1].id if row.sequence.tokens else int(row.sequence.prompt[-1]) for row in self._rows
        ]
        positions = [row.start + length for row, length in zip(self._rows, self._cache.lengths, strict=True)]
        prefill: list[PrefillSegment] = []
        for row in late:
            above: list[Segment] = []
            position = 0
            for node in row.node.path():
                size = len(node.tokens)
                if node.segment is None:
                    node.segment = Segment(*self._shape.empty(tokens=size))
                    prefill.append(PrefillSegment(node.segment, tuple(above), len(ids)))
                    ids.extend(node.tokens.tolist())
                    positions.extend(range(position, position + size))
                above.append(node.segment)
                position += size
        return prefill, ids, positions

    def _forward(self, prefill: list[PrefillSegment], ids: list[int], positions: list[int]) -> list[SampledToken]:
        device = self._shape.device
        rows = len(self._rows)
        step = AttentionStep(self._cache, [row.start for row in self._rows], self._sharing(), prefill)
        logits = self._module(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            logits_to_keep=torch.arange(max(rows, 1), device=device),
            attend=step,
        ).logits
        self._cache.lengths = [length + 1 for length in self._cache.lengths]
        return draw(logits[0], [(row.sequence.params, row.sequence.random) for row in self._rows]) if rows else []

    def _sharing(self) -> list[SharedPrefix]:
        if self._shared is None:
            rows_of: dict[int, list[int]] = {}
            found: dict[int, tuple[Segment, int]] = {}
            for index, row in enumerate(self._rows):
                start = 0
                for segment in row.shared:
                    found[id(segment)] = (segment, start)
                    rows_of.setdefault(id(segment), []).append(index)
                    start += len(segment)
            everyone = len(self._rows)
            self._shared = [
                SharedPrefix(
                    segment,
                    None if len(rows_of[key]) == everyone else torch.tensor(rows_of[key], device=self._shape.device),
                    start,
                )
                for key, (segment, start) in found.items()
            ]
        return self._shared

    def _join(self, row: _Row) -> None:
        """A row begins to run: it attends to one copy of what is worth sharing, or too long for its tail; the rest is
        copied there."""
        path = row.node.path()
        depth = max(
            (at + 1 for at, node in enumerate(path) if (node.rows - 1) * len(node.tokens) >= WORTH_SHARING), default=0
        )
        segments = [node.segment for node in path if node.segment is not None]
        while sum(map(len, segments[depth:])) > self._longest_tail:
            depth += 1
        row.shared = segments[:depth]
        row.start = sum(map(len, row.shared))
        self._cache.add(segments[depth:])
        self._rows.append(row)
        self._shared = None

    def _shorten(self) -> None:
        """Rows whose tails have grown too long go on with new ones: what they have written is in the prefix tree."""
        for index, row in enumerate(self._rows):
            if self._cache.lengths[index] < self._longest_tail:
                continue
            end = self._keep(index)
            path = end.path()
            for node in path:
                node.rows += 1
            row.node, row.known = end, row.start + self._cache.lengths[index]
            row.shared = [node.segment for node in path if node.segment is not None]
            row.start, self._cache.lengths[index] = row.known, 0
            self._shared = None

    def _keep(self, index: int) -> Node:
        """Puts what a row has computed into the prefix tree, where nothing is held for it any more; returns its end."""
        row = self._rows[index]
        ids = row.sequence.written()[row.known : row.start + self._cache.lengths[index]]
        end = self._tree.extend(ids, row.node)
        if end is not row.node and end.segment is None:
            end.segment = self._cache.copy(index, self._cache.lengths[index] - len(end.tokens))
        for node in row.node.path():
            node.rows -= 1
        return end

    def _leave(self, index: int) -> None:
        """A row ends: what it computed stays in the prefix tree."""
        self._keep(index)
        self._cache.remove(index)
        last = self._rows.pop()
        if index < len(self._rows):
            self._rows[index] = last
        self._shared = None

    def _deliver(self, sampled: list[SampledToken]) -> None:
        finished = []
        for index, token in enumerate(sampled):
            sequence = self._rows[index].sequence
            token.policy_version = self._version
            sequence.tokens.append(token)
            params = sequence.params
            sequence.finished = token.id in params.stop_token_ids or len(sequence.tokens) >= params.max_tokens
            if sequence.finished:
                finished.append(index)
            if params.stream or sequence.finished:
                sequence.notify()
        self.stats.generated_tokens += len(sampled)
        for index in reversed(finished):
            self._leave(index)


def _fail(sequence: SequenceState, error: Exception) -> None:
    sequence.error = error
    sequence.notify()
