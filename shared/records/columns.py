"""Records as columns, as they travel between processes and into answers."""

from __future__ import annotations

import msgspec


class Columns(msgspec.Struct, frozen=True, omit_defaults=True):
    """Records as parallel columns; a column that was not asked for is None.

    `metadatas` holds JSON text as stored (hidden keys included), `embeddings` the bytes of float32 [n, dimension],
    little-endian.
    """

    ids: list[str]
    documents: list[str | None] | None = None
    metadatas: list[str | None] | None = None
    uris: list[str | None] | None = None
    embeddings: bytes | None = None
    dimension: int = 0
