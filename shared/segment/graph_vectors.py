"""The vectors that a neighbour graph holds, and is searched with, instead of those of the records.

hnswlib takes some things silently that break its order: NaN, and products that overflow float32. So a *graph vector* is

* for cosine the vector scaled to length 1 in float64, compared by inner product (a zero vector stays zero: its distance
  is 1, as in docs/wire.md, section 13);
* for the other spaces the vector itself, scaled down to the length `_NORM_MAX` when it is longer.

Graph vectors decide only which rows are looked at; distances are computed from the records' vectors.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from shared.vectors.arrays import Vectors
from shared.vectors.space import Space

_NORM_MAX: Final = 1e18


def graph_vectors(space: Space, vectors: Vectors) -> Vectors:
    """The graph vectors, float32 [n, d], of `vectors` [n, d]: finite, and no product of two of them overflows."""
    if space is not Space.COSINE and float(np.abs(vectors).max(initial=0.0)) * vectors.shape[1] <= _NORM_MAX:
        return vectors  # all of them are shorter
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if space is Space.COSINE:
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    else:
        scale = np.minimum(1.0, _NORM_MAX / np.maximum(norms, _NORM_MAX))
        if (scale == 1.0).all():
            return vectors
    scaled: Vectors = (vectors * scale[:, None]).astype(np.float32)
    return scaled
