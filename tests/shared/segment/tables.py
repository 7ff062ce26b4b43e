"""Tables of records for the segment tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from shared.records.model import record_schema
from shared.segment.format import SegmentInfo
from shared.segment.graph import GraphParams
from shared.segment.reader import Segment, open_segment
from shared.segment.writer import write_segment
from shared.vectors.arrays import Vectors
from shared.vectors.space import Space


def vectors_of(rows: int, dimension: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)


def table(vectors: Vectors, ids: Sequence[str] | None = None, first: int = 1) -> pa.Table:
    """A record per vector, inserted at positions from `first`, some with a document, metadata, a uri."""
    rows, dimension = vectors.shape
    metadata = [None if i % 5 == 0 else orjson.dumps({"n": i, "even": i % 2 == 0}).decode() for i in range(rows)]
    columns = {
        "id": list(ids) if ids is not None else [f"id-{i}" for i in range(rows)],
        "inserted": np.arange(first, first + rows),
        "written": np.arange(first, first + rows) + 1,
        "digest": [i.to_bytes(16, "little") for i in range(rows)],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension),
        "document": [None if i % 3 == 0 else f"döcument {i}" for i in range(rows)],
        "metadata": metadata,
        "uri": [f"file://{i}" if i % 7 == 0 else None for i in range(rows)],
    }
    return pa.table(columns, schema=record_schema(dimension))


def params(space: Space = Space.L2, neighbors: int = 16) -> GraphParams:
    return GraphParams(space, ef_construction=100, max_neighbors=neighbors, threads=2)


def build(
    directory: Path, records: pa.Table, space: Space = Space.L2, prior_graph: Path | None = None
) -> tuple[SegmentInfo, Segment]:
    """Writes and opens a segment named after its directory."""
    info = write_segment(
        directory, directory.name, f"c/0/segments/{directory.name}", records, params(space), prior_graph
    ).info
    return info, open_segment(directory, info)
