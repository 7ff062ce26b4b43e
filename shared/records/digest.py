"""The digest that proves a compaction: 16 bytes per record, and their sum for a set of records.

A record's digest is the xxh3-128 of its canonical encoding, all integers little-endian:

```text
 0   4  length of the id
 4   4  length of the embedding
 8   4  length of the document    |
12   4  length of the metadata    | 0xFFFFFFFF when it is null
16   4  length of the uri         |
20   .  id, embedding (float32), document, metadata (the JSON text as stored), uri
```

`inserted` and `written` are not part of it: the digest is of (id, content). Records of a set have distinct ids, so
distinct encodings; their digests as little-endian integers are added modulo 2**128, in any order and grouping: the sums
of subsets add up, and taking records out is subtraction. The digest guards against mistakes, not against an adversary
who writes to the bucket.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from shared.vectors.arrays import Uint8Array, Uint8Matrix

MODULUS: Final = 1 << 128
DIGEST_BYTES: Final = 16
_HEADER_BYTES: Final = 20
_NULL: Final = 0xFFFF_FFFF
_ROWS_AT_ONCE: Final = 8192


def record_digests(records: pa.Table) -> pa.Array:
    """The digest of each row, binary(16), of a table with the columns of `record_schema` (`digest` may be absent)."""
    digests: list[bytes] = []
    for start in range(0, records.num_rows, _ROWS_AT_ONCE):
        digests.extend(_digests_of(records.slice(start, _ROWS_AT_ONCE)))
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(DIGEST_BYTES), records.num_rows, [None, pa.py_buffer(b"".join(digests))]
    )


def total(digests: pa.Array | pa.ChunkedArray | Uint8Matrix) -> int:
    """The sum, modulo 2**128, of digests that are given as binary(16) or as bytes [n, 16]."""
    words = as_bytes(digests).view("<u4").reshape(-1, 4).astype(np.uint64)
    return sum(int(column) << (32 * place) for place, column in enumerate(words.sum(axis=0))) % MODULUS


def as_bytes(digests: pa.Array | pa.ChunkedArray | Uint8Matrix) -> Uint8Matrix:
    """Digests as contiguous bytes [n, 16]."""
    if isinstance(digests, np.ndarray):
        return np.ascontiguousarray(digests, dtype=np.uint8).reshape(-1, DIGEST_BYTES)
    chunks = digests.chunks if isinstance(digests, pa.ChunkedArray) else [digests]
    arrays = [
        np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * DIGEST_BYTES, chunk.offset * DIGEST_BYTES)
        for chunk in chunks
        if len(chunk)
    ]
    joined: Uint8Array = np.concatenate(arrays) if arrays else np.empty(0, np.uint8)
    return joined.reshape(-1, DIGEST_BYTES)


def to_hex(value: int) -> str:
    """A sum as a manifest spells it: 32 hex digits."""
    return f"{value:032x}"


def _digests_of(records: pa.Table) -> list[bytes]:
    """The digests of a few thousand rows: encoded end to end by column operations, then hashed in place."""
    records = records.combine_chunks()
    texts = [_column(records, name).cast(pa.large_binary()) for name in ("id", "document", "metadata", "uri")]
    embedding = _embedding_bytes(_column(records, "embedding"))
    columns = [texts[0], embedding, *texts[1:]]
    header = np.empty((records.num_rows, len(columns)), "<u4")
    for place, column in enumerate(columns):
        header[:, place] = pc.binary_length(column).fill_null(_NULL).to_numpy(zero_copy_only=False)
    encoded = pc.binary_join_element_wise(
        _fixed_width(header.tobytes(), _HEADER_BYTES, records.num_rows),
        *(column.fill_null(b"") for column in columns),
        pa.scalar(b"", pa.large_binary()),
    )
    offsets = np.frombuffer(encoded.buffers()[1], np.int64, len(encoded) + 1, encoded.offset * 8).tolist()
    content = memoryview(encoded.buffers()[2])
    # xxh3 gives its 128 bits big-endian; the sum only needs one fixed reading of the 16 bytes.
    return [xxhash.xxh3_128_digest(content[start:end]) for start, end in pairwise(offsets)]


def _column(records: pa.Table, name: str) -> pa.Array:
    column = records.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _embedding_bytes(embedding: pa.Array) -> pa.Array:
    dimension = embedding.type.list_size
    values = embedding.flatten().to_numpy(zero_copy_only=True).astype("<f4", copy=False)
    return _fixed_width(values.tobytes(), 4 * dimension, len(embedding))


def _fixed_width(content: bytes, width: int, count: int) -> pa.Array:
    offsets = np.arange(count + 1, dtype=np.int64) * width
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    )
