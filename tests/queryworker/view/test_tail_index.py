import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from queryworker.filter import evaluate, text
from queryworker.view.tail_index import BLOCK_ROWS, TailIndex, block_ranges
from queryworker.view.tail_part import TailPart
from shared.memtable.memtable import Memtable
from shared.records.indexing import Indexing
from shared.records.model import Op
from shared.records.where import Compare, DocumentContains, MetadataCompare
from shared.segment.metadata_index import MetadataIndex
from shared.vectors.arrays import Mask
from shared.vectors.distance import squared_norms
from tests.shared.memtable.model import DictBase, Operation, batch


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 511, 512, 5_000, 40_000])
def test_blocks_cover_every_row_once_with_few_blocks(rows: int) -> None:
    found = block_ranges(rows)
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])][: len(found)]
    assert sum(stop - start for start, stop in found) == rows
    assert len(found) <= 7 * (len(BLOCK_ROWS) - 1) + rows // BLOCK_ROWS[0] + 1


def test_whole_blocks_stay_the_same_while_the_tail_grows() -> None:
    before, after = block_ranges(4_096 + 600), block_ranges(4_096 + 640)
    assert before[:2] == after[:2] == [(0, 4_096), (4_096, 4_608)]


def _fill(memtable: Memtable, count: int) -> None:
    first = memtable.rows
    numbers = range(first, first + count)
    adds = [Operation(Op.ADD, f"r{i}", (float(i), 1.0, 0.0), f"doc {i % 7}", {"n": i % 10}) for i in numbers]
    memtable.apply(batch(adds), memtable.position or 1, (memtable.position or 1) + count)


def _matching(memtable: Memtable, index: TailIndex, position: int, remainder: int) -> list[int]:
    tail = memtable.at(position)
    part = TailPart(tail, index, 0, tail.rows)
    matching = part.filter(MetadataCompare("n", Compare.EQ, remainder)).resolve_all() & tail.alive
    return np.flatnonzero(matching).tolist()


def test_filters_on_a_growing_tail_agree_with_a_loop_and_index_no_row_often(monkeypatch: pytest.MonkeyPatch) -> None:
    indexed = 0
    build = MetadataIndex.from_json

    def counting(rows: Sequence[str | None], indexing: Indexing) -> MetadataIndex:
        nonlocal indexed
        indexed += len(rows)
        return build(rows, indexing)

    monkeypatch.setattr(MetadataIndex, "from_json", counting)
    random_ = random.Random(3)
    memtable, index = Memtable(DictBase({}), None), TailIndex()
    positions = []
    for _ in range(200):
        _fill(memtable, random_.choice([1, 2, 40]))
        positions.append(memtable.position)
        assert _matching(memtable, index, memtable.position, 3) == list(range(3, memtable.rows, 10))
    assert indexed < memtable.rows * (len(BLOCK_ROWS) - 1) + 200 * BLOCK_ROWS[-1]
    for position in random_.sample(positions, 20):
        assert _matching(memtable, index, position, 3) == list(range(3, position - 1, 10))


def test_a_filter_reads_documents_of_all_blocks_and_of_a_range_of_rows() -> None:
    memtable, index = Memtable(DictBase({}), None), TailIndex()
    _fill(memtable, 100)
    memtable.apply(batch([Operation(Op.DELETE, "r0"), Operation(Op.UPDATE, "r7", document="other")]), 101, 103)
    tail = memtable.at(103)
    where = DocumentContains("doc 0")
    result = TailPart(tail, index, 0, tail.rows).filter(where)
    assert not result.resolved
    assert result.resolve(np.array([98, 15, 100, 7, 0])).tolist() == [True, False, False, True, True]
    assert np.flatnonzero(result.resolve_all() & tail.alive).tolist() == list(range(14, 100, 7))
    assert np.flatnonzero(TailPart(tail, index, 60, 90).filter(where).resolve_all()).tolist() == [3, 10, 17, 24]


def test_norms_are_those_of_the_vectors_however_the_tail_grew() -> None:
    memtable, index = Memtable(DictBase({}), None), TailIndex()
    for count in (1, 300, 5):
        _fill(memtable, count)
        tail = memtable.at(memtable.position)
        assert np.array_equal(index.norms(tail), squared_norms(tail.vectors))
    assert len(index.norms(memtable.at(2))) == 1


def test_what_the_index_holds_is_counted() -> None:
    """Else a worker with a long tail would hold several times the memory that it may."""
    memtable, index = Memtable(DictBase({}), None), TailIndex()
    _fill(memtable, 1000)
    tail = memtable.at(memtable.position)
    part = TailPart(tail, index, 0, tail.rows)
    assert index.bytes == 0
    part.filter(MetadataCompare("n", Compare.EQ, 3))
    after_metadata = index.bytes
    assert after_metadata >= 1000 * (8 + 4)  # a number and its row
    part.filter(DocumentContains("doc 0")).resolve_all()
    after_documents = index.bytes
    assert after_documents >= after_metadata + 1000 * (len("doc 0") + 2 * 2)  # the text, and two masks
    part.norms(compute=True)
    assert index.bytes == after_documents + 4 * 1000
    for block in index.blocks(tail):
        block.sparse("s")
    assert index.bytes == after_documents + 4 * 1000, "there are no sparse vectors"


@pytest.mark.parametrize("rows", [64, 700])  # a block alone, several blocks
def test_documents_of_the_tail_are_read_once_for_a_filter_that_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    read = 0
    search = text.containing

    def counting(documents: pa.Array, literal: str) -> Mask:
        nonlocal read
        read += len(documents)
        return search(documents, literal)

    monkeypatch.setattr(evaluate, "containing", counting)
    memtable, index = Memtable(DictBase({}), None), TailIndex()
    _fill(memtable, rows)
    where, expected = DocumentContains("doc 3"), list(range(3, rows, 7))
    for position in (memtable.position, memtable.position, memtable.position - 1):
        tail = memtable.at(position)
        found = TailPart(tail, index, 0, tail.rows).filter(where).resolve_all()
        assert np.flatnonzero(found).tolist() == [row for row in expected if row < tail.rows]
    assert read == rows
