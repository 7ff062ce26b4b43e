"""Rows as columns that filters are evaluated on: in memory as the tail is, or written and mapped as a segment is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa

from shared.segment.metadata_index import MetadataIndex
from shared.segment.text_index import TextIndex, write_text_index
from tests.queryworker.filter.scalar import Row


@dataclass(frozen=True)
class RowColumns:
    rows: int
    ids: pa.Array
    documents: pa.Array
    metadata: MetadataIndex
    text_index: TextIndex | None


def columns_of(rows: Sequence[Row], directory: Path | None = None) -> RowColumns:
    """With a directory the indexes make the way through their files, and text is as wide as in a segment."""
    texts = [None if row.metadata is None else orjson.dumps(row.metadata).decode() for row in rows]
    metadata = MetadataIndex.from_json(texts)
    text = pa.string()
    documents = [row.document for row in rows]
    text_index: TextIndex | None = None
    if directory is not None:
        metadata.write(directory / "metadata.index")
        metadata = MetadataIndex.open(directory / "metadata.index")
        text = pa.large_string()
        write_text_index(directory / "text.index", pa.array(documents, text))
        text_index = TextIndex(directory / "text.index")
    ids = pa.array([row.id for row in rows], text)
    return RowColumns(len(rows), ids, pa.array(documents, text), metadata, text_index)
