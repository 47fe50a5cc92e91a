"""A library of passages, searched by words (BM25) and, where it has embeddings, by meaning as well."""

import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import bm25s
import numpy as np

LONGEST_QUERY = 300
LONGEST_TEXT = 300
SMOOTHING = 60
"""The k of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009)."""

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to unit vectors (N, D)."""


@dataclass(frozen=True)
class Passage:
    """``number`` is what an answer cites."""

    number: int
    title: str
    text: str

    def __str__(self) -> str:
        return f"[{self.number}] {self.title}: {textwrap.shorten(self.text, LONGEST_TEXT, placeholder=' …')}"


class Library:
    """Passages and their index."""

    def __init__(self, passages: Sequence[Passage], embed: Embed | None = None) -> None:
        self.passages = list(passages)
        texts = [f"{passage.title} {passage.text}" for passage in passages]
        self._bm25 = bm25s.BM25()
        self._bm25.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
        self._embed = embed
        self._vectors = None if embed is None else embed(texts)

    @classmethod
    def load(cls, path: Path, embed: Embed | None = None) -> "Library":
        """The library of a JSONL file of ``{"title": …, "text": …}``; passages are numbered from 1."""
        with path.open(encoding="utf-8") as lines:
            return cls([Passage(number, **json.loads(line)) for number, line in enumerate(lines, 1)], embed)

    def search(self, query: str, count: int = 3) -> list[Passage]:
        """The passages that fit a query best; none where nothing fits."""
        query = query[:LONGEST_QUERY]
        rankings = [self._by_words(query)]
        if self._vectors is not None and query.strip():
            rankings.append(self._by_meaning(query))
        return [self.passages[index] for index in fused(rankings)[:count]]

    def _by_words(self, query: str) -> list[int]:
        (words,) = bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)
        if not words:
            return []
        scores = self._bm25.get_scores(words)
        return [int(index) for index in np.argsort(-scores, kind="stable") if scores[index] > 0]

    def _by_meaning(self, query: str) -> list[int]:
        scores = self._vectors @ self._embed([query])[0]
        return [int(index) for index in np.argsort(-scores, kind="stable")]


def fused(rankings: Sequence[Sequence[int]]) -> list[int]:
    """Reciprocal rank fusion: an item scores 1 / (k + rank) in each ranking that has it."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (SMOOTHING + rank)
    return sorted(scores, key=lambda item: (-scores[item], item))
