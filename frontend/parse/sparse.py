"""Sparse vectors as they stand in metadata values and in search queries (docs/wire.md, section 11)."""

from __future__ import annotations

from itertools import pairwise
from operator import lt
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from frontend.parse.shapes import shaped
from shared.limits import U32_MAX
from shared.vectors.sparse import SparseArrays, rounded

Index = Annotated[int, msgspec.Meta(ge=0, le=U32_MAX)]


class SparseVector(msgspec.Struct, frozen=True, kw_only=True):
    """A vector with the value `values[i]` in dimension `indices[i]`, and zero in all others. `tokens[i]`, where given,
    is a label of that dimension.
    """

    indices: list[Index]
    values: list[float]
    tokens: list[str] | None = None
    kind: Literal["sparse_vector"] = msgspec.field(default="sparse_vector", name="#type")

    def problem(self) -> str | None:
        """Why the vector is refused, None when it is valid."""
        if len(self.indices) != len(self.values):
            return "indices and values must have the same length"
        if self.tokens is not None and len(self.tokens) != len(self.indices):
            return "tokens and indices must have the same length"
        if not all(lt(*pair) for pair in pairwise(self.indices)):
            return "indices must be strictly ascending"
        if not np.isfinite(rounded(self.values)).all():
            return "values must not contain NaN or Infinity values"
        return None

    def arrays(self) -> SparseArrays:
        """Indices as uint32 [n] and values as float32 [n]."""
        return SparseArrays(np.array(self.indices, np.uint32), rounded(self.values))


def read_sparse(value: Any) -> SparseVector:
    """The sparse vector in a JSON tree; its rules (`problem`) are not checked. Raises WrongShape."""
    return shaped(value, SparseVector)
