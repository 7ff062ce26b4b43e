"""Sparse vectors: their form, the distance between two of them, and the weight that the rarity of an index gives it.

```text
distance    1 - sum(q[i] * d[i])    over the indices that both have
none        when they share no index: such a record is no neighbour at all
```

The sum is made in float64 in ascending order of the indices and rounded once to float32, so the same two vectors have
the same distance in a segment, in the tail and on any worker, and parts merge exactly. (A product of two float32 is
exact in float64.) What exceeds float32 becomes infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from shared.vectors.arrays import Float64Array, Int64Array, SparseIndices, SparseWeights
from shared.vectors.elementary import log_ratio

TYPE_MEMBER: Final = "#type"
TYPE: Final = "sparse_vector"
"""The member and its value by which a sparse vector is told from other objects in the JSON text of metadata."""


class SparseArrays(NamedTuple):
    """A sparse vector: `values[i]` in the dimension `indices[i]` (strictly ascending), zero in all others."""

    indices: SparseIndices
    values: SparseWeights


def is_sparse(value: object) -> bool:
    """Whether a metadata value is a sparse vector (its shape was checked when it was written)."""
    return type(value) is dict and value.get(TYPE_MEMBER) == TYPE


def of_json(value: Mapping[str, Any]) -> SparseArrays:
    """The sparse vector in a stored metadata value, for which `is_sparse` holds."""
    return SparseArrays(np.array(value["indices"], np.uint32), rounded(value["values"]))


def rounded(values: Any) -> SparseWeights:
    """Numbers rounded to float32; those that are too large become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(np.float32)


def distances_of(products: Any) -> Any:
    """Distances, float32, from sums of products, float64: of one of them or of an array."""
    with np.errstate(over="ignore"):
        return (1.0 - products).astype(np.float32)


def idf(records: int, document_frequencies: Int64Array) -> Float64Array:
    """The inverse document frequency of BM25 (Robertson and Sparck Jones; the variant of Lucene, never negative),
    float64 [n], of n indices, each of which `document_frequencies` [n] of `records` records have.
    """
    counted = np.minimum(document_frequencies, records).astype(np.float64)
    return log_ratio(records + 1.0, counted + 0.5)  # of 1 + (records - counted + 0.5) / (counted + 0.5)


def idf_weighted(query: SparseArrays, records: int, document_frequencies: Int64Array) -> SparseArrays:
    """The query with each value multiplied by the `idf` of its index; `document_frequencies` as there, parallel to the
    query's indices.
    """
    largest = float(np.finfo(np.float32).max)
    return SparseArrays(
        query.indices, rounded(np.clip(query.values * idf(records, document_frequencies), -largest, largest))
    )
