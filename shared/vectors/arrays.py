"""The types of numpy arrays: every array in a signature of this project has one of these names.

numpy's own types know the dtype of an array and not its shape. So here each name has one of both: `[n]` is an array of
one dimension, `[n, d]` a matrix of n rows of d numbers. The first names say what the numbers mean; the others say the
dtype, for numbers of some other meaning (`Array`: [n], `Matrix`: [n, d]).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""float32 [d]: one embedding or query."""

Vectors = npt.NDArray[np.float32]
"""float32 [n, d]: embeddings or queries, one per row."""

Distances = npt.NDArray[np.float32]
"""float32 [n]: distances as the API shows them (`shared.vectors.distance`)."""

SquaredNorms = npt.NDArray[np.float32]
"""float32 [n]: squares of the lengths of vectors."""

Scores = npt.NDArray[np.float32]
"""float32 [n]: values of a rank expression, the least first."""

SparseIndices = npt.NDArray[np.uint32]
"""uint32 [n]: the dimensions in which a sparse vector is not zero, ascending."""

SparseWeights = npt.NDArray[np.float32]
"""float32 [n]: what a sparse vector has in these dimensions."""

Mask = npt.NDArray[np.bool_]
"""bool [n]: which of n rows are meant."""

RowNumbers = npt.NDArray[np.int64]
"""int64 [n]: numbers of rows in a segment, a tail or a batch."""

RowNumbers32 = npt.NDArray[np.int32]
"""int32 [n]: numbers of rows as the indexes of a segment store them."""

Positions = npt.NDArray[np.int64]
"""int64 [n]: positions in a collection's log."""

Indices = npt.NDArray[np.intp]
"""intp [n]: where in another array, as `argsort` and `flatnonzero` say it."""

Hashes = npt.NDArray[np.uint64]
"""uint64 [n]: hashes of names or of ids."""

TokenIds = npt.NDArray[np.int32]
"""int32 [n]: a text as the numbers of its tokens in the vocabulary of an embedding model."""

Int8Matrix = npt.NDArray[np.int8]
"""int8 [n, d]."""

Uint8Array = npt.NDArray[np.uint8]
"""uint8 [n]: bytes of text or of a mapped file, or small codes."""

Uint8Matrix = npt.NDArray[np.uint8]
"""uint8 [n, d]."""

Uint16Array = npt.NDArray[np.uint16]
"""uint16 [n]."""

Uint32Array = npt.NDArray[np.uint32]
"""uint32 [n]."""

Int64Array = npt.NDArray[np.int64]
"""int64 [n]: counts, byte offsets, ranks."""

Float32Array = npt.NDArray[np.float32]
"""float32 [n]."""

Float32Matrix = npt.NDArray[np.float32]
"""float32 [n, d]."""

Float64Array = npt.NDArray[np.float64]
"""float64 [n]."""

Float64Matrix = npt.NDArray[np.float64]
"""float64 [n, d]."""

AnyArray = npt.NDArray[Any]
"""An array of whatever dtype; the place that has it says which, and its shape."""
