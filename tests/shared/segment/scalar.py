"""Sparse search without an index, in plain Python: every record is compared with the query."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from shared.vectors.sparse import SparseArrays

Sparse = dict[int, float]
"""Value by index; both are exact float32."""


def float32(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def vector(values: Sparse) -> SparseArrays:
    indices = sorted(values)
    return SparseArrays(
        np.array(indices, np.uint32), np.array([values[index] for index in indices], np.float64).astype(np.float32)
    )


def stored(values: Sparse) -> dict[str, Any]:
    """As a metadata value."""
    return {"#type": "sparse_vector", "indices": sorted(values), "values": [values[i] for i in sorted(values)]}


def distance(query: Sparse, record: Sparse) -> float | None:
    """None when they share no index."""
    shared = sorted(query.keys() & record.keys())
    product = 0.0
    for index in shared:
        product += query[index] * record[index]
    return float32(1.0 - product) if shared else None


def nearest(query: Sparse, records: Sequence[Sparse | None], rows: Iterable[int]) -> list[tuple[float, int]]:
    """(distance, row) of every neighbour among `rows`, nearest first, ties by row."""
    found = [(distance(query, record), row) for row in rows if (record := records[row]) is not None]
    return sorted((measured, row) for measured, row in found if measured is not None)
