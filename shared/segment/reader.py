"""An open segment: everything mapped, nothing copied, nothing ever changed; any number of threads may use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from shared.errors import Corrupt
from shared.process.lazy import lazy
from shared.segment.codes_file import open_codes
from shared.segment.format import CODES, GRAPH, IDS, METADATA, RECORDS, SPARSE, TEXT, SegmentInfo, check_lengths
from shared.segment.graph import Graph
from shared.segment.id_index import IdIndex
from shared.segment.metadata_index import MetadataIndex
from shared.segment.records_file import embedding_matrix, open_records
from shared.segment.sparse_file import open_sparse_indexes
from shared.segment.sparse_index import InvertedIndex
from shared.segment.text_index import TextIndex
from shared.segment.text_reader import TextReader
from shared.vectors.arrays import Mask, Positions, RowNumbers, SquaredNorms, Vectors
from shared.vectors.codes import Codes
from shared.vectors.distance import nearest_many, squared_norms

DEFAULT_EF_SEARCH: Final = 100


def open_segment(
    directory: Path, info: SegmentInfo, ef_search: int = DEFAULT_EF_SEARCH, *, graph: bool = True
) -> Segment:
    """Opens a segment whose files were verified when they were fetched. `ef_search` is the least beam of its graph;
    without `graph` it is not loaded, which is for callers that do not search. Raises Corrupt when lengths or headers
    are wrong.
    """
    check_lengths(directory, info)
    batch = open_records(directory / RECORDS, info)
    loaded = None
    if info.graph and graph:
        loaded = Graph.open(directory / GRAPH, info, ef_search)
    ids = IdIndex(directory / IDS, batch.column("id"))
    text_index = TextIndex(directory / TEXT) if info.text else None
    if text_index is not None and text_index.rows != info.rows:
        raise Corrupt(f"segment {info.id}: {TEXT} is of {text_index.rows} rows, not {info.rows}")
    sparse = open_sparse_indexes(directory / SPARSE, info.rows) if info.sparse else {}
    codes = open_codes(directory / CODES, info.rows, info.dimension) if info.has(CODES) else None
    metadata = MetadataIndex.open(directory / METADATA)
    return Segment(info, batch, ids, metadata, sparse, text_index, codes, loaded)


class Segment:
    """A segment's records as columns by row number, and its indexes. `vectors` is float32 [rows, dimension]; `inserted`
    and `written` are the positions at which each record was inserted and last changed. Arrays that were handed out stay
    valid after `close`: the mapping lives as long as they do.
    """

    def __init__(
        self,
        info: SegmentInfo,
        batch: pa.RecordBatch,
        ids: IdIndex,
        metadata: MetadataIndex,
        sparse: Mapping[str, InvertedIndex],
        text_index: TextIndex | None,
        codes: Codes | None,
        graph: Graph | None,
    ) -> None:
        self.info = info
        self.rows = info.rows
        self.metadata = metadata
        self.text_index = text_index
        self.codes = codes
        self.vectors: Vectors = embedding_matrix(batch.column("embedding"))
        self.inserted: Positions = batch.column("inserted").to_numpy(zero_copy_only=True)
        self.written: Positions = batch.column("written").to_numpy(zero_copy_only=True)
        self.ids: pa.LargeStringArray = batch.column("id")
        self.documents: pa.LargeStringArray = batch.column("document")
        self.records = pa.Table.from_batches([batch])
        self._texts: dict[str, TextReader] = {}
        self._index = ids
        self._sparse = sparse
        self._graph: Graph | None = graph

    def text(self, name: str) -> TextReader:
        """Reads the column `id`, `document`, `metadata` or `uri` row by row."""
        column = self._texts.get(name)
        if column is None:  # two threads may make the same one at once: they are equal
            column = self._texts[name] = TextReader(self.records.column(name).chunk(0))
        return column

    @lazy
    def norms(self) -> SquaredNorms:
        """`squared_norms` of the vectors, for exact scans."""
        return squared_norms(self.vectors)

    def find(self, ids: Sequence[str]) -> list[int]:
        """The row of each id, -1 where it is missing. Rows that a manifest calls dead are found, too (`SegmentSet`)."""
        return self._index.find(ids)

    def sparse(self, key: str) -> InvertedIndex | None:
        """The index of the sparse vectors at a key, None when no row has one or the schema has no index for them."""
        return self._sparse.get(key)

    def search(self, queries: Vectors, k: int, threads: int = 1) -> list[RowNumbers]:
        """min(k, rows) rows for each of `queries` [q, d], nearest first: by the graph with a beam of max(ef_search of
        the opening, k), or exactly when there is none or it came back short.
        """
        if k <= 0 or not len(queries):
            return [np.empty(0, np.int64) for _ in queries]
        found = self._graph.search(queries, k, threads) if self._graph is not None else [None] * len(queries)
        missing = [number for number, rows in enumerate(found) if rows is None]
        scanned = iter(nearest_many(self.info.space, queries[missing], self.vectors, k, codes=self.codes))
        return [next(scanned).rows if rows is None else rows for rows in found]

    @property
    def dimension_share(self) -> float:
        """The share of dimensions that the graph compares: with less than 1, its order is about right, not exact."""
        return 1.0 if self._graph is None else self._graph.dimension_share

    def out_of_distribution(self, queries: Vectors) -> Mask:
        """About which of `queries` [q, d], bool [q], the graph says little (`shared.segment.projection`)."""
        return np.zeros(len(queries), np.bool_) if self._graph is None else self._graph.out_of_distribution(queries)

    def close(self) -> None:
        """Gives the graph's memory back; searching afterwards scans. Mappings go with the last array over them."""
        self._graph = None
