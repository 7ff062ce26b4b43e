"""Texts as sparse vectors: the client's half of BM25, for the examples and the benchmarks."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WORD = re.compile(r"[a-z0-9]+")
SATURATION = 1.2
LENGTH_SHARE = 0.75

Vector = tuple[list[int], list[float]]
"""Indices, ascending, and values."""


@dataclass(frozen=True)
class Bm25:
    """The document side of BM25 (term frequency and length; rarity is left to the query), one index per word."""

    vocabulary: dict[str, int]
    frequencies: np.ndarray
    documents: list[Vector]

    @staticmethod
    def of(texts: Sequence[str]) -> Bm25:
        counted = [Counter(WORD.findall(text.lower())) for text in texts]
        mean = sum(sum(words.values()) for words in counted) / len(counted)
        vocabulary: dict[str, int] = {}
        documents: list[Vector] = []
        for words in counted:
            length = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * sum(words.values()) / mean)
            pairs = sorted(
                (vocabulary.setdefault(word, len(vocabulary)), count * (SATURATION + 1) / (count + length))
                for word, count in words.items()
            )
            documents.append(([index for index, _ in pairs], [value for _, value in pairs]))
        frequencies = np.bincount([index for indices, _ in documents for index in indices], minlength=len(vocabulary))
        return Bm25(vocabulary, frequencies, documents)

    def query(self, text: str, *, rarity: bool) -> Vector:
        """`rarity`: with the inverse document frequency, which a server with `bm25` multiplies in itself."""
        indices = sorted({self.vocabulary[word] for word in WORD.findall(text.lower()) if word in self.vocabulary})
        return indices, [self._rarity(index) if rarity else 1.0 for index in indices]

    def _rarity(self, index: int) -> float:
        records, having = len(self.documents), float(self.frequencies[index])
        return math.log(1 + (records - having + 0.5) / (having + 0.5))
