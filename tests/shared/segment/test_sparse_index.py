import math
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Corrupt
from shared.segment.sparse_file import open_sparse_indexes, write_sparse_indexes
from shared.segment.sparse_index import InvertedIndex, sparse_indexes
from shared.vectors.sparse import SparseArrays, idf_weighted
from tests.shared.segment import scalar
from tests.shared.segment.scalar import Sparse

VALUES = st.sampled_from([0.0, -0.0, 0.1, 0.5, 1.0, 1.0, 2.0, -1.0, -0.5, 3e38, -3e38, 1e-40]).map(scalar.float32)
VECTORS = st.dictionaries(st.integers(0, 11) | st.just(2**32 - 1), VALUES, max_size=6)
RECORDS = st.lists(st.none() | VECTORS, max_size=40)


def text(record: Sparse | None) -> str | None:
    return None if record is None else orjson.dumps({"other": 1, "sv": scalar.stored(record)}).decode()


def index_of(records: list[Sparse | None]) -> InvertedIndex | None:
    return sparse_indexes(list(map(text, records)), ["sv"]).get("sv")


@given(records=RECORDS, query=VECTORS, k=st.integers(0, 12), masked=st.booleans(), data=st.data())
def test_the_nearest_are_exactly_those_of_a_scan_whatever_is_pruned(
    records: list[Sparse | None], query: Sparse, k: int, masked: bool, data: st.DataObject
) -> None:
    index = index_of(records)
    if index is None:
        assert all(record is None for record in records)
        return
    mask = None
    if masked:
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(records), max_size=len(records))), np.bool_)
    rows = range(len(records)) if mask is None else np.flatnonzero(mask).tolist()
    truth = scalar.nearest(query, records, rows)

    hits = index.nearest(scalar.vector(query), k, mask)

    found = list(zip(hits.distances.tolist(), hits.rows.tolist(), strict=True))
    assert found[:k] == truth[:k]
    ties = [hit for hit in truth if k and hit[0] <= truth[: k or 1][-1][0]]
    assert found == ties


def test_pruning_is_exact_on_vectors_like_those_of_texts() -> None:
    random = np.random.default_rng(7)
    frequencies = 1.0 / np.arange(1, 400)
    frequencies /= frequencies.sum()
    records: list[Sparse | None] = [
        {int(i): scalar.float32(random.gamma(2.0)) for i in random.choice(399, 20, p=frequencies)} for _ in range(3000)
    ]
    index = index_of(records)
    assert index is not None
    mask = random.random(len(records)) < 0.3
    for _ in range(40):
        query = {int(i): scalar.float32(-math.log(frequencies[i])) for i in random.choice(399, 6, p=frequencies)}
        for k, within in ((10, None), (10, mask), (500, None)):
            rows = range(len(records)) if within is None else np.flatnonzero(within).tolist()
            hits = index.nearest(scalar.vector(query), k, within)
            found = list(zip(hits.distances.tolist(), hits.rows.tolist(), strict=True))
            assert found[:k] == scalar.nearest(query, records, rows)[:k]


def test_records_without_a_shared_index_are_no_neighbours_but_those_with_weight_zero_are() -> None:
    index = index_of([{1: 1.0}, {2: 0.0}, {3: 1.0}, None])
    assert index is not None
    hits = index.nearest(scalar.vector({2: 5.0, 3: 1.0}), 10)
    assert hits.rows.tolist() == [2, 1]
    assert hits.distances.tolist() == [0.0, 1.0]


def test_all_that_tie_with_the_last_come_along() -> None:
    index = index_of([{1: 1.0}] * 5)
    assert index is not None
    assert index.nearest(scalar.vector({1: 1.0}), 2).rows.tolist() == [0, 1, 2, 3, 4]


@given(records=RECORDS, indices=st.sets(st.integers(0, 13)))
def test_counts_are_of_rows_that_have_an_index(records: list[Sparse | None], indices: set[int]) -> None:
    index = index_of(records)
    if index is None:
        return
    wanted = np.array(sorted(indices), np.uint32)
    mask = np.arange(len(records)) % 2 == 0
    for within, counted in ((None, records), (mask, records[::2])):
        truth = [sum(record is not None and i in record for record in counted) for i in sorted(indices)]
        assert index.document_frequencies(wanted, within).tolist() == truth


@given(records=RECORDS, query=VECTORS)
def test_a_written_index_answers_like_the_one_in_memory(
    tmp_path_factory: pytest.TempPathFactory, records: list[Sparse | None], query: Sparse
) -> None:
    path = tmp_path_factory.mktemp("sparse") / "sparse.index"
    built = sparse_indexes(list(map(text, records)), ["sv", "other"])
    write_sparse_indexes(path, len(records), built)
    opened = open_sparse_indexes(path, len(records))
    assert opened.keys() == built.keys() <= {"sv"}
    for key, index in opened.items():
        expected = built[key].nearest(scalar.vector(query), 5)
        found = index.nearest(scalar.vector(query), 5)
        assert found.rows.tolist() == expected.rows.tolist()
        assert found.distances.tolist() == expected.distances.tolist()


def test_a_file_that_is_no_index_of_the_segment_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "sparse.index"
    write_sparse_indexes(path, 1, sparse_indexes([text({1: 1.0})], ["sv"]))
    with pytest.raises(Corrupt):
        open_sparse_indexes(path, 2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Corrupt):
        open_sparse_indexes(path, 1)


def test_only_the_keys_asked_for_are_indexed_and_only_sparse_vectors() -> None:
    row = orjson.dumps({"sv": scalar.stored({1: 1.0}), "no": scalar.stored({2: 1.0}), "k": "sparse_vector"}).decode()
    assert sparse_indexes([row, None, "{}"], ["sv", "k"]).keys() == {"sv"}


def test_rare_indices_weigh_more() -> None:
    query = SparseArrays(np.array([1, 2, 3], np.uint32), np.array([1.0, 1.0, 2.0], np.float32))
    found = idf_weighted(query, 10, np.array([1, 0, 12]))
    expected = [math.log(1 + 9.5 / 1.5), math.log(1 + 10.5 / 0.5), 2 * math.log(1 + 0.5 / 10.5)]
    assert found.values.tolist() == pytest.approx(expected, rel=1e-6)
    huge = SparseArrays(query.indices, np.array([3e38, -3e38, 0.0], np.float32))
    assert np.isfinite(idf_weighted(huge, 10, np.array([1, 1, 1])).values).all()
