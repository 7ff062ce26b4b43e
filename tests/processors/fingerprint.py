"""What must be equal on every processor, as one hash per kind of result: `python -m tests.processors.fingerprint`.

The inputs are made of whole numbers, which every processor computes alike. Prints JSON. numkong does without the
families of instructions that are named as arguments; OPENBLAS_CORETYPE and NPY_DISABLE_CPU_FEATURES say what OpenBLAS
and numpy do with.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numkong
import numpy as np
import xxhash

from shared.search.expression import Combination, Constant, Expression, KnnValue, Operator
from shared.search.ranking import Neighbours, evaluate
from shared.segment.sparse_index import InvertedIndex
from shared.vectors.arrays import Vectors
from shared.vectors.codes import encode
from shared.vectors.distance import Nearest, distances, nearest_many
from shared.vectors.space import Space
from shared.vectors.sparse import SparseArrays, idf_weighted

DIMENSIONS: Final = (1, 3, 61, 384, 9000)
ROWS: Final = 1500


def kernel_in_force() -> str:
    """What OpenBLAS calls the kernels that it uses; empty where numpy multiplies by something else."""
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "openblas" in line}
    for path in mapped:
        library = ctypes.CDLL(path)
        for name in ("scipy_openblas_get_corename64_", "openblas_get_corename64_", "openblas_get_corename"):
            if hasattr(library, name):
                function = getattr(library, name)
                function.restype = ctypes.c_char_p
                return bytes(function()).decode()
    return ""


def numbers(seed: int, *shape: int) -> Vectors:
    """float32 in [-1, 1): the upper 24 bits of the numbers that SplitMix64 gives from `seed` on."""
    state = np.arange(1, np.prod(shape, dtype=np.int64) + 1, dtype=np.uint64) + np.uint64(seed << 32)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return ((state >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)).reshape(shape)


def _alike(dimension: int) -> Vectors:
    """Rows of which many are equal and many differ in their last bits: products of float32 order these wrongly."""
    vectors = numbers(1, ROWS, dimension)
    vectors[100:400] = vectors[5] * (np.float32(1) + numbers(2, 300, dimension) * np.float32(2**-22))
    vectors[400:700:3] = vectors[5]
    return vectors


def _bytes(found: Iterable[Nearest]) -> bytes:
    return b"".join(one.rows.astype("<i8").tobytes() + one.distances.astype("<f4").tobytes() for one in found)


def dense_distances(space: Space) -> bytes:
    found = [distances(space, numbers(3, dimension), _alike(dimension)[:700]) for dimension in DIMENSIONS]
    return b"".join(one.astype("<f4").tobytes() for one in found)


def scans(space: Space) -> bytes:
    """Exact ones, with and without codes, of all rows and of some."""
    vectors = _alike(384)
    queries = np.concatenate([vectors[[5, 250, 1200]], numbers(4, 6, 384)])
    codes = encode(space, vectors)
    kept = np.flatnonzero(numbers(5, ROWS) < 0.3)
    return b"".join(
        _bytes(nearest_many(space, queries, vectors, k, rows=rows, codes=some))
        for rows in (None, kept)
        for some in (None, codes)
        for k in (1, 10, 300)
    )


def sparse() -> bytes:
    rows, size = 400, 30
    index = InvertedIndex(
        count=rows,
        indices=np.arange(size, dtype=np.uint32),
        starts=np.arange(size + 1, dtype=np.int64) * (rows // 2),
        rows=np.concatenate([np.arange(number % 2, rows, 2, dtype=np.int32) for number in range(size)]),
        weights=(weights := numbers(6, size * (rows // 2))),
        least=weights.reshape(size, -1).min(axis=1),
        most=weights.reshape(size, -1).max(axis=1),
    )
    query = SparseArrays(np.arange(size, dtype=np.uint32), numbers(7, size))
    rare = idf_weighted(query, rows, np.arange(size, dtype=np.int64) * 13)
    values: bytes = rare.values.astype("<f4").tobytes()
    return values + _bytes(index.nearest(one, 20) for one in (query, rare))


def ranks() -> bytes:
    first = Neighbours(np.arange(0, 900), 30 * np.abs(numbers(8, 900)))
    second = Neighbours(np.arange(300, 1200), np.abs(numbers(9, 900)))
    near, far = KnnValue(0, default=9.0), KnnValue(1, default=2.0)

    def of(operator: Operator, *operands: Expression) -> Combination:
        return Combination(operator, list(operands))

    expressions = [
        of(Operator.EXP, of(Operator.SUB, near, Constant(20.0))),
        of(Operator.LOG, of(Operator.DIV, near, far)),
        of(Operator.SUM, of(Operator.MUL, near, far), of(Operator.ABS, of(Operator.LOG, far))),
        of(Operator.MAX, of(Operator.MUL, Constant(0.0), near), of(Operator.MIN, near, Constant(-0.0))),
    ]
    ranked = [evaluate(expression, [first, second]) for expression in expressions]
    return b"".join(one.inserted.astype("<i8").tobytes() + one.scores.astype("<f4").tobytes() for one in ranked)


KINDS: Final[dict[str, Callable[[], bytes]]] = {
    **{f"distances {space}": lambda space=space: dense_distances(space) for space in Space},  # type: ignore[misc]
    **{f"scans {space}": lambda space=space: scans(space) for space in Space},  # type: ignore[misc]
    "sparse": sparse,
    "ranks": ranks,
}


def fingerprint() -> dict[str, Any]:
    return {name: xxhash.xxh3_64_hexdigest(made()) for name, made in KINDS.items()}


if __name__ == "__main__":
    for family in sys.argv[1:]:
        numkong.disable_capability(family)
    sys.stdout.write(json.dumps({"kernel": kernel_in_force(), "results": fingerprint()}))
