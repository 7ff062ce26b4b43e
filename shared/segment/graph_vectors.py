"""What a graph holds instead of the vectors, and what they are searched by: their *guides*.

hnswlib takes some things silently that break its order: NaN, and products that overflow float32. So for cosine a guide
is the vector scaled to length 1 in float64 (a zero vector stays zero: distance 1, as in docs/wire.md, section 13),
searched by inner product; for the others it is the vector itself, scaled down to `_NORM_MAX` when longer. Guides decide
only which rows are looked at.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from shared.vectors.space import Space

Vectors = npt.NDArray[np.float32]

_NORM_MAX: Final = 1e18


def guides(space: Space, vectors: Vectors) -> Vectors:
    """Of these vectors; float32 [n, d], finite, no product of two of them overflows."""
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
