"""Writes the files of a segment. The caller owns the directory; nothing here is visible to anyone before a
manifest names it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from shared.limits import GRAPH_ROWS_MIN
from shared.records.indexing import EVERYTHING, Indexing
from shared.records.model import record_schema
from shared.segment.codes_file import write_codes
from shared.segment.format import (
    CODES,
    FORMAT,
    FORMAT_KEY,
    GRAPH,
    IDS,
    METADATA,
    OPTIONAL,
    RECORDS,
    SPARSE,
    TEXT,
    SegmentInfo,
    describe,
)
from shared.segment.graph import GraphParams, build_graph
from shared.segment.id_index import write_id_index
from shared.segment.metadata_index import MetadataIndex
from shared.segment.records_file import embedding_matrix
from shared.segment.sparse_file import write_sparse_indexes
from shared.segment.sparse_index import sparse_indexes
from shared.segment.text_index import write_text_index
from shared.vectors.codes import DIMENSION_MAX, encode

__all__ = ["GraphParams", "Written", "write_segment"]


class Written(NamedTuple):
    """A segment whose files were written. `inserted` is how many rows were added to a graph."""

    info: SegmentInfo
    inserted: int


def write_segment(
    directory: Path,
    segment_id: str,
    path: str,
    records: pa.Table,
    params: GraphParams,
    prior_graph: Path | None = None,
    check: Callable[[], None] | None = None,
    indexing: Indexing = EVERYTHING,
) -> Written:
    """Writes `records` (columns of `record_schema`, in insertion order, one row or more) as a segment into `directory`.

    `path` is the key prefix of the files in the bucket. `prior_graph` is the graph of a segment whose rows are exactly
    the first rows of `records`, dead ones included: a copy of it is extended instead of building a new one, and so is
    the text index beside it. `check` is called every few seconds; what it raises ends the work. `indexing` says what is
    not indexed. Raises ValueError when `records` has other columns or no row, Corrupt when the prior files cannot be
    read.
    """
    batch = _one_batch(records)
    vectors = embedding_matrix(batch.column("embedding"))
    directory.mkdir(parents=True, exist_ok=True)
    ids = batch.column("id")
    _write_records(directory / RECORDS, batch)
    write_id_index(directory / IDS, ids.to_pylist(), segment_id)
    MetadataIndex.from_json(batch.column("metadata"), indexing).write(directory / METADATA)
    sparse = sparse_indexes(batch.column("metadata"), indexing.sparse)
    if sparse:
        write_sparse_indexes(directory / SPARSE, batch.num_rows, sparse)
    indexed = batch.num_rows >= GRAPH_ROWS_MIN
    text = indexed and indexing.documents
    if text:
        prior_text = None if prior_graph is None else prior_graph.with_name(TEXT)
        write_text_index(directory / TEXT, batch.column("document"), prior_text, check)
    if indexed and vectors.shape[1] <= DIMENSION_MAX:
        write_codes(directory / CODES, encode(params.space, vectors))
    inserted = build_graph(directory / GRAPH, vectors, params, prior_graph, check) if indexed else 0
    bounds = pc.min_max(ids).as_py()
    info = SegmentInfo(
        id=segment_id,
        path=path,
        rows=batch.num_rows,
        dimension=vectors.shape[1],
        space=params.space,
        graph=indexed,
        files=[],
        id_min=bounds["min"],
        id_max=bounds["max"],
        text=text,
        sparse=bool(sparse),
    )
    optional = [name for name in OPTIONAL if (directory / name).exists()]
    info.files.extend(describe(directory / name) for name in (*info.names(), *optional))
    return Written(info, inserted)


def _one_batch(records: pa.Table) -> pa.RecordBatch:
    if records.num_rows == 0:
        raise ValueError("a segment has at least one row")
    dimension = records.schema.field("embedding").type.list_size
    schema = record_schema(dimension)
    table = records.select(schema.names).cast(schema)
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(f"column {field.name} has nulls")
    return table.combine_chunks().to_batches()[0]


def _write_records(path: Path, batch: pa.RecordBatch) -> None:
    batch = batch.replace_schema_metadata({FORMAT_KEY: str(FORMAT).encode()})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
