"""Continuous batching: a thread that takes requests as they come and gives every running one a token per step."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from agentlightning.errors import PolicyError
from agentlightning_policy.engine.attention import Fresh, Shared, Step, measure, served
from agentlightning_policy.engine.cache import Node, PrefixTree, Segment, Tails
from agentlightning_policy.engine.sampling import Drawn, Sampling, draw
from agentlightning_policy.model import PolicyModel

logger = logging.getLogger(__name__)

PREFILL = 2048
"""Prompt tokens that one step takes in, at most (one longer prompt goes alone)."""
WORTH_SHARING = 512
"""Key reads per step that a shared segment must save before rows attend to one copy of it."""

Finish = Literal["stop", "length"]


class EngineClosedError(PolicyError):
    """The engine stops; the request was not, or not wholly, answered."""


@dataclass(eq=False)
class Generation:
    """One answer being made. ``notify`` is called from the scheduler's thread: after every token when
    ``streams``, and when ``finish`` or ``error`` is set."""

    prompt: np.ndarray
    sampling: Sampling
    notify: Callable[[], object]
    streams: bool = False
    tokens: list[Drawn] = field(default_factory=list)
    version: int = -1
    """The weights that wrote the first token."""
    finish: Finish | None = None
    error: Exception | None = None
    cancelled: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.finish is not None or self.error is not None

    def written(self) -> np.ndarray:
        """Prompt and answer so far, as ids."""
        return np.concatenate([self.prompt, np.array([token.id for token in self.tokens], np.int32)])


@dataclass
class Stats:
    """What the engine has done since it started. Tokens ``computed`` are prompt tokens that no cache held."""

    requests: int = 0
    continued: int = 0
    rendered: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    cancelled: int = 0
    failed: int = 0


@dataclass(eq=False)
class _Row:
    generation: Generation
    node: Node
    """Where the prefix tree ends for this row: all written tokens but the last, when it was admitted."""
    known: int
    """Tokens up to that node."""
    start: int = 0
    """Position at which the row's tail begins."""
    shared: list[Segment] = field(default_factory=list)


class Scheduler:
    """Runs the policy for many requests at once.

    ``end_ids`` are the tokens that end an answer; ``decode`` is needed for stop strings.
    """

    def __init__(
        self,
        policy: PolicyModel,
        *,
        end_ids: Collection[int],
        decode: Callable[[list[int]], str],
        max_batch: int,
        cache_memory: int,
    ) -> None:
        self.stats = Stats()
        self._policy = policy
        self._end_ids = frozenset(end_ids)
        self._decode = decode
        self._max_batch = max_batch
        self._module = served(policy.module, policy.base)
        self._shape = measure(self._module, policy.device)
        self._tree = PrefixTree(cache_memory // self._shape.bytes_per_token)
        self._tails = Tails(self._shape)
        self._version = policy.version
        self._rows: list[_Row] = []
        self._shared: list[Shared] | None = None
        self._waiting: deque[Generation] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="agentlightning-engine", daemon=True)

    def start(self) -> None:
        """Begins to take requests."""
        self._thread.start()

    def submit(self, *generations: Generation) -> None:
        """Hands in requests, together. Raises `EngineClosedError` after `close`."""
        with self._ready:
            if self._closing:
                raise EngineClosedError("the engine is shutting down")
            self._waiting.extend(generations)
            self.stats.requests += len(generations)
            self._ready.notify()

    def cancel(self, generation: Generation) -> None:
        """Nobody waits for this answer any more."""
        with self._ready:
            generation.cancelled = True
            self._ready.notify()

    def close(self) -> None:
        """Fails what is not finished with `EngineClosedError`, and ends the thread."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        if self._thread.ident is not None:
            self._thread.join()

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._closing or self._waiting or self._rows)
                if self._closing:
                    break
            self._forget_cancelled()
            if self._rows or self._waiting:
                self._try_step()
        error = EngineClosedError("the engine is shutting down")
        for generation in [*(row.generation for row in self._rows), *self._waiting]:
            _fail(generation, error)
        self._rows.clear()
        self._waiting.clear()

    def _forget_cancelled(self) -> None:
        with self._ready:
            gone = [generation for generation in self._waiting if generation.cancelled]
            for generation in gone:
                self._waiting.remove(generation)
        self.stats.cancelled += len(gone)
        for place in reversed(range(len(self._rows))):
            if self._rows[place].generation.cancelled:
                self.stats.cancelled += 1
                self._leave(place)

    def _try_step(self) -> None:
        admitted: list[_Row] = []
        try:
            with self._policy.reading() as version:
                if version != self._version:
                    self._start_over(version)
                self._admit(admitted)
                self._step(admitted)
        except Exception as error:
            logger.exception("a step of the engine failed; the requests in it fail with it")
            rows = list({id(row): row for row in [*self._rows, *admitted]}.values())
            self._rows.clear()
            self._reset()
            self.stats.failed += len(rows)
            for row in rows:
                _fail(row.generation, error)

    def _start_over(self, version: int) -> None:
        """The weights have changed: what is running is computed again from its tokens, which stay."""
        self._version = version
        with self._ready:
            self._waiting.extendleft(row.generation for row in reversed(self._rows))
        self._rows.clear()
        self._reset()

    def _reset(self) -> None:
        self._tree.clear()
        self._tails.clear()
        self._shared = None

    def _admit(self, admitted: list[_Row]) -> None:
        """Takes waiting requests in, in their order, as far as there is room."""
        before = self._tree.tokens
        while len(self._rows) + len(admitted) < self._max_batch and self._tree.tokens - before < PREFILL:
            with self._ready:
                if not self._waiting:
                    break
                generation = self._waiting.popleft()
            ids = generation.written()[:-1]
            row = _Row(generation, self._tree.root, len(ids))
            admitted.append(row)
            row.node = self._tree.extend(ids)
            for node in row.node.path():
                node.rows += 1
            self.stats.prompt_tokens += len(ids)
        self.stats.computed_tokens += self._tree.tokens - before

    def _step(self, admitted: list[_Row]) -> None:
        self._tails.reserve(len(self._rows) + len(admitted), 0)
        late = []
        for row in admitted:
            if all(node.segment is not None for node in row.node.path()):
                self._join(row)
            else:
                late.append(row)
        fresh, ids, positions = self._lay_out(late)
        if self._rows or fresh:
            drawn = self._forward(fresh, ids, positions)
            for row in late:
                self._join(row)
            self._deliver(drawn)
        self._tree.evict()
        self.stats.steps += 1

    def _lay_out(self, late: list[_Row]) -> tuple[list[Fresh], list[int], list[int]]:
        """The packed tokens of a pass with their positions, and the segments to compute, ancestors first."""
        ids = [
            row.generation.tokens[-1].id if row.generation.tokens else int(row.generation.prompt[-1])
            for row in self._rows
        ]
        positions = [row.start + length for row, length in zip(self._rows, self._tails.lengths, strict=True)]
        fresh: list[Fresh] = []
        for row in late:
            above: list[Segment] = []
            position = 0
            for node in row.node.path():
                size = len(node.tokens)
                if node.segment is None:
                    node.segment = Segment(*self._shape.empty(tokens=size))
                    fresh.append(Fresh(node.segment, tuple(above), len(ids)))
                    ids.extend(node.tokens.tolist())
                    positions.extend(range(position, position + size))
                above.append(node.segment)
                position += size
        return fresh, ids, positions

    def _forward(self, fresh: list[Fresh], ids: list[int], positions: list[int]) -> list[Drawn]:
        device = self._shape.device
        rows = len(self._rows)
        step = Step(self._tails, [row.start for row in self._rows], self._sharing(), fresh)
        logits = self._module(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            logits_to_keep=torch.arange(max(rows, 1), device=device),
            attend=step,
        ).logits
        self._tails.lengths = [length + 1 for length in self._tails.lengths]
        return draw(logits[0], [row.generation.sampling for row in self._rows]) if rows else []

    def _sharing(self) -> list[Shared]:
        if self._shared is None:
            rows_of: dict[int, list[int]] = {}
            found: dict[int, tuple[Segment, int]] = {}
            for place, row in enumerate(self._rows):
                start = 0
                for segment in row.shared:
                    found[id(segment)] = (segment, start)
                    rows_of.setdefault(id(segment), []).append(place)
                    start += len(segment)
            everyone = len(self._rows)
            self._shared = [
                Shared(
                    segment,
                    None if len(rows_of[key]) == everyone else torch.tensor(rows_of[key], device=self._shape.device),
                    start,
                )
                for key, (segment, start) in found.items()
            ]
        return self._shared

    def _join(self, row: _Row) -> None:
        """A row begins to run: it attends to one copy of what is worth sharing, the rest is copied to its tail."""
        path = row.node.path()
        depth = max(
            (at + 1 for at, node in enumerate(path) if (node.rows - 1) * len(node.tokens) >= WORTH_SHARING), default=0
        )
        segments = [node.segment for node in path if node.segment is not None]
        row.shared = segments[:depth]
        row.start = sum(map(len, row.shared))
        self._tails.add(segments[depth:])
        self._rows.append(row)
        self._shared = None

    def _leave(self, place: int) -> None:
        """A row ends: what it computed stays in the prefix tree."""
        row = self._rows[place]
        ids = row.generation.written()[row.known : row.start + self._tails.lengths[place]]
        end = self._tree.extend(ids, row.node)
        if end is not row.node and end.segment is None:
            end.segment = self._tails.copy(place, self._tails.lengths[place] - len(end.tokens))
        for node in row.node.path():
            node.rows -= 1
        self._tails.remove(place)
        last = self._rows.pop()
        if place < len(self._rows):
            self._rows[place] = last
        self._shared = None

    def _deliver(self, drawn: list[Drawn]) -> None:
        finished = []
        for place, token in enumerate(drawn):
            generation = self._rows[place].generation
            if not generation.tokens:
                generation.version = self._version
            generation.tokens.append(token)
            generation.finish = self._finish(generation, token)
            if generation.finish is not None:
                finished.append(place)
            if generation.streams or generation.finish is not None:
                generation.notify()
        self.stats.generated_tokens += len(drawn)
        for place in reversed(finished):
            self._leave(place)

    def _finish(self, generation: Generation, token: Drawn) -> Finish | None:
        sampling = generation.sampling
        if token.id in self._end_ids or token.id in sampling.stop_ids or (sampling.stop and self._stopped(generation)):
            return "stop"
        return "length" if len(generation.tokens) >= sampling.max_tokens else None

    def _stopped(self, generation: Generation) -> bool:
        longest = max(map(len, generation.sampling.stop))
        # a character is at most four tokens, so this many hold the longest stop string
        tail = self._decode([token.id for token in generation.tokens[-4 * longest - 4 :]])
        return any(stop in tail for stop in generation.sampling.stop)


def _fail(generation: Generation, error: Exception) -> None:
    generation.error = error
    generation.notify()
