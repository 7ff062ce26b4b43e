"""Batches: what is built comes back, split and cut, without a copy."""

import numpy as np
import pyarrow as pa
import pytest

from shared import limits
from shared.cluster.placement import Layout, shard_of
from shared.errors import Corrupt
from shared.log.batch import build_batch, decode_batch, split_batch
from shared.records.model import Op, batch_schema


def test_a_batch_comes_back_as_it_was() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    batch = build_batch(
        Op.ADD, ["a", "é", "\U0001f600"], vectors, None, ["x", None, ""], [b'{"k":2.0}', None, '{"é":1}']
    )
    (entry,) = split_batch(batch, Layout(0, 1))[0]
    back = decode_batch(entry.payload)
    assert back.schema == batch_schema(2)
    assert back["id"].to_pylist() == ["a", "é", "\U0001f600"]
    assert back["document"].to_pylist() == ["x", None, ""]
    assert back["metadata"].to_pylist() == ['{"k":2.0}', None, '{"é":1}']
    assert back["uri"].null_count == 3
    assert np.array_equal(back["embedding"].flatten().to_numpy(zero_copy_only=True).reshape(3, 2), vectors)
    assert (entry.offset, entry.count) == (0, 3)


def test_rows_without_a_vector_are_null() -> None:
    batch = build_batch(Op.UPDATE, ["a", "b", "c"], np.ones((2, 3), dtype=np.float32), np.array([0, 2]))
    assert batch["embedding"].is_null().to_pylist() == [False, True, False]
    assert batch["embedding"].to_pylist()[2] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("embeddings", [None, np.zeros((0, 4), dtype=np.float32)])
def test_without_any_vector_there_is_no_column(embeddings: np.ndarray | None) -> None:
    batch = build_batch(Op.DELETE, ["a"], embeddings)
    assert batch.schema == batch_schema(None)


def test_operations_may_differ_by_row() -> None:
    batch = build_batch(np.array([Op.DELETE, Op.UPSERT], dtype=np.uint8), ["a", "b"])
    assert batch["op"].to_pylist() == [3, 2]


def test_each_shard_gets_its_ids_with_their_offsets() -> None:
    ids = [f"id-{i}" for i in range(1000)]
    batch = build_batch(Op.ADD, ids, np.arange(2000, dtype=np.float32).reshape(1000, 2))
    parts = split_batch(batch, Layout(0, 4))
    seen = []
    for shard, entries in parts.items():
        for entry in entries:
            rows = decode_batch(entry.payload)
            assert set(shard_of(rows["id"].to_pylist(), 4)) == {shard}
            assert entry.offset == rows["offset"][0].as_py()
            assert rows["offset"].to_pylist() == sorted(rows["offset"].to_pylist())
            firsts = rows["embedding"].flatten().to_numpy()[::2]
            assert np.array_equal(firsts, 2 * rows["offset"].to_numpy())
            seen += rows["offset"].to_pylist()
    assert sorted(seen) == list(range(1000))


def test_entries_are_cut_near_their_target_and_no_row_is_divided() -> None:
    huge = "x" * (limits.ENTRY_BYTES_TARGET + 1)
    documents = [huge, "small", *["y" * 100_000] * 90, huge]
    batch = build_batch(Op.ADD, [str(i) for i in range(len(documents))], documents=documents)
    entries = split_batch(batch, Layout(0, 1))[0]
    back = pa.Table.from_batches([decode_batch(entry.payload) for entry in entries])
    assert back["document"].to_pylist() == documents
    assert [entry.offset for entry in entries] == np.cumsum([0, *(entry.count for entry in entries)])[:-1].tolist()
    assert len(entries) >= 4
    assert all(len(entry.payload) < 1.2 * limits.ENTRY_BYTES_TARGET for entry in entries if entry.count > 1)


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_payload_that_does_not_decode_is_corrupt(damage: bytes | None) -> None:
    (entry,) = split_batch(build_batch(Op.ADD, ["a"], np.ones((1, 2), dtype=np.float32)), Layout(0, 1))[0]
    with pytest.raises(Corrupt):
        decode_batch(entry.payload[: len(entry.payload) // 2] if damage is None else damage)
