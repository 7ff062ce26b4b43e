"""Filtered queries on real records: as many hits as there should be, and recall no lower than without a filter, at
every selectivity and however the filter lies to the query.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyroaring import BitMap

from deploy import real_data
from queryworker.query import get, knn
from queryworker.query.part_knn import EXTRA_CANDIDATES
from queryworker.view.read_view import ReadView
from queryworker.view.shard_view import OpenManifest, ShardView
from shared.log.state import Pointer
from shared.records.model import record_schema
from shared.records.regex import compile_regex
from shared.records.selection import Selection
from shared.records.where import (
    All,
    AnyOf,
    Compare,
    DocumentContains,
    DocumentRegex,
    MetadataCompare,
    MetadataIn,
    Where,
)
from shared.rpc import messages
from shared.segment.graph import GraphParams
from shared.segment.reader import open_segment
from shared.segment.segment_set import SegmentSet
from shared.segment.writer import write_segment
from shared.vectors.distance import nearest_many
from shared.vectors.space import Space
from tests.missing import needs_real_data

ROWS, QUERIES, K = 12_000, 200, 10
FIELDS = ("section", "priority", "installed_size", "architecture")
PARAMS = GraphParams(Space.L2, ef_construction=100, max_neighbors=16, threads=2)


class Real:
    """The rows, a read view of one segment with them, and the queries with the true distances."""

    def __init__(self, directory: Path) -> None:
        needs_real_data()
        table = pq.read_table(real_data.PACKAGES)
        table = table.take(np.sort(np.random.default_rng(1).permutation(len(table))[:ROWS]))
        self.documents: list[str] = table["document"].to_pylist()
        self.vectors = self._vectors(table)
        self.queries = self._vectors(pq.read_table(real_data.QUERIES))[:QUERIES]
        every = nearest_many(Space.L2, self.queries, self.vectors, ROWS)
        self.order = np.array([hits.rows for hits in every])
        # Whether a row lies to the query's side of the middle of all: correlates with the vectors as much as anything.
        axis = np.linalg.svd(self.vectors[:2000] - self.vectors.mean(axis=0))[2][0]
        self.along = self.vectors @ axis
        self.metadata: list[dict[str, Any]] = [
            {**fields, "row": row, "along": float(self.along[row])}
            for row, fields in enumerate(table.select(FIELDS).to_pylist())
        ]
        self.view = self._read_view(table, directory)

    @staticmethod
    def _vectors(table: pa.Table) -> np.ndarray:
        flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat.reshape(len(table), -1), np.float32)

    def _read_view(self, table: pa.Table, directory: Path) -> ReadView:
        width = self.vectors.shape[1]
        records = pa.table(
            {
                "id": table["id"].to_pylist(),
                "inserted": np.arange(1, ROWS + 1),
                "written": np.arange(1, ROWS + 1),
                "digest": [bytes(16)] * ROWS,
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(self.vectors.ravel()), width),
                "document": self.documents,
                "metadata": [orjson.dumps(metadata).decode() for metadata in self.metadata],
                "uri": pa.nulls(ROWS, pa.large_string()),
            },
            schema=record_schema(width),
        )
        segment = open_segment(directory, write_segment(directory, "s", "c/0/segments/s", records, PARAMS).info, 1)
        stack = SegmentSet([segment], [BitMap()])
        return ShardView(OpenManifest(Pointer(1, "x", ROWS + 1), stack, width, PARAMS, 0)).read_view()

    def search(self, where: Where | None, queries: np.ndarray, *, explain: bool = False) -> messages.QueryResponse:
        request = messages.QueryRequest(
            messages.Shard("c"), queries.tobytes(), len(queries), queries.shape[1], K, 100,
            Selection(where=where), explain=explain,
        )  # fmt: skip
        return knn.query_nearest(self.view, request)

    def recall(self, where: Where | None, keep: Callable[[int], bool]) -> float:
        matching = np.array([keep(row) for row in range(ROWS)])
        answer = self.search(where, self.queries)
        assert answer.counts == [min(K, int(matching.sum()))] * QUERIES
        found = np.split(np.frombuffer(answer.inserted, "<i8") - 1, np.cumsum(answer.counts)[:-1])
        hits = [
            len(set(rows.tolist()) & set(order[matching[order]][:K].tolist()))
            for rows, order in zip(found, self.order, strict=True)
        ]
        return sum(hits) / sum(answer.counts) if matching.any() else 1.0


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    return Real(tmp_path_factory.mktemp("real") / "s")


@pytest.fixture(scope="module")
def unfiltered(real: Real) -> float:
    """At ef_search 100."""
    recall = real.recall(None, lambda _: True)
    assert recall >= 0.985
    return recall


def goal(unfiltered: float, share: float) -> float:
    """Of a filter that this share of the rows matches."""
    return 0.995 if share <= 0.6 else unfiltered - 0.01


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.03, 0.1, 0.2, 0.5, 0.9, 0.99])
def test_filters_that_have_nothing_to_do_with_the_vectors(real: Real, unfiltered: float, share: float) -> None:
    chosen = np.random.default_rng(2).permutation(ROWS)[: round(share * ROWS)].tolist()
    rows = set(chosen)
    assert real.recall(MetadataIn("row", chosen), rows.__contains__) >= goal(unfiltered, share)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("above", [True, False])
def test_filters_that_lie_to_one_side_of_the_vectors(real: Real, unfiltered: float, share: float, above: bool) -> None:
    """For some queries what matches is all around, for the others far away."""
    bound = float(np.quantile(real.along, 1 - share if above else share))
    matching = real.along > bound if above else real.along < bound
    where = MetadataCompare("along", Compare.GT if above else Compare.LT, bound)
    assert real.recall(where, matching.tolist().__getitem__) >= goal(unfiltered, share)


@pytest.mark.parametrize(
    "where",
    [
        MetadataCompare("section", Compare.EQ, "haskell"),
        MetadataCompare("section", Compare.NE, "haskell"),
        MetadataCompare("priority", Compare.NE, "optional"),
        MetadataCompare("installed_size", Compare.GT, 165),
        MetadataIn("section", ["libs", "perl", "doc"]),
        All([MetadataCompare("architecture", Compare.EQ, "all"), MetadataCompare("installed_size", Compare.LTE, 100)]),
    ],
)
def test_real_fields(real: Real, unfiltered: float, where: Where) -> None:
    part = real.view.parts[0]
    matching = part.filter(where).resolve_all()
    assert real.recall(where, lambda row: bool(matching[row])) >= goal(unfiltered, float(matching.mean()))


TEXTS = ["library", "Library", "editor", "zq", "a", "Haskell", "nowhere to be found", "\u00e9"]
PATTERNS = [r"[0-9]{4}", r"\bgtk\d", "(?i)postgres", "editor|viewer", "^lib.*dev$", r"(?m)^ *\* .*support", "x{9}"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("negated", [False, True])
def test_texts_in_documents(real: Real, unfiltered: float, text: str, negated: bool) -> None:
    where = DocumentContains(text, negated)
    assert real.recall(where, lambda row: (text in real.documents[row]) != negated) >= unfiltered - 0.01


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("negated", [False, True])
def test_patterns_in_documents(real: Real, unfiltered: float, pattern: str, negated: bool) -> None:
    matches = compile_regex(pattern).matches
    hit = [matches(document) != negated for document in real.documents]
    assert real.recall(DocumentRegex(pattern, negated), hit.__getitem__) >= unfiltered - 0.01


def test_texts_and_fields_together(real: Real, unfiltered: float) -> None:
    where = AnyOf(
        [
            All([DocumentContains("library"), MetadataCompare("architecture", Compare.EQ, "all")]),
            All([DocumentRegex("[0-9]{3}"), MetadataCompare("section", Compare.EQ, "doc")]),
        ]
    )
    digits = compile_regex("[0-9]{3}").matches

    def keep(row: int) -> bool:
        metadata, document = real.metadata[row], real.documents[row]
        return ("library" in document and metadata["architecture"] == "all") or (
            metadata["section"] == "doc" and digits(document)
        )

    assert real.recall(where, keep) >= unfiltered - 0.01


def test_few_documents_are_read_for_the_nearest_that_contain_a_common_word(real: Real) -> None:
    answer = real.search(DocumentContains("is a", True), real.queries[:1], explain=True)
    assert answer.explanation is not None
    (part,) = answer.explanation.parts
    assert part.undecided
    assert part.beams
    assert part.documents_read <= sum(part.beams) + part.scans * (2 * K + EXTRA_CANDIDATES) < ROWS / 10


def test_a_page_reads_documents_until_it_is_full(real: Real) -> None:
    selection = Selection(where=DocumentContains("package"))
    request = messages.GetRequest(messages.Shard("c"), selection, offset=20, limit=30, explain=True)
    answer = get.get_records(real.view, request)
    expected = [row + 1 for row, document in enumerate(real.documents) if "package" in document][20:50]
    assert np.frombuffer(answer.inserted, "<i8").tolist() == expected
    assert answer.explanation is not None
    assert answer.explanation.parts[0].documents_read < 1000
    everything = get.get_records(real.view, messages.GetRequest(messages.Shard("c"), selection))
    assert len(everything.columns.ids) == sum("package" in document for document in real.documents)
