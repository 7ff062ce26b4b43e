"""Embedding functions that compute nothing."""

from collections.abc import Sequence

import numpy as np

from shared.errors import PolychromeError
from shared.vectors.arrays import Vectors


class Lengths:
    """A text's vector is its length and a one. `fail_with` is raised instead; `vectors` are answered instead."""

    def __init__(self, model: str = "small", width: int = 2) -> None:
        self.model = model
        self.width = width
        self.asked: list[list[str]] = []
        self.fail_with: Exception | None = None
        self.vectors: Vectors | None = None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(list(texts))
        if self.fail_with is not None:
            raise self.fail_with
        if self.vectors is not None:
            return self.vectors
        return np.array([[len(text), *[1.0] * (self.width - 1)] for text in texts], np.float32)


class Failing(Lengths):
    def __init__(self, error: PolychromeError) -> None:
        super().__init__()
        self.fail_with = error
