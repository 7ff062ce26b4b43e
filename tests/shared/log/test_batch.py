"""Batches: what is built comes back, split and cut, without a copy."""

import contextlib
import random
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from shared import limits
from shared.cluster.placement import Layout, shard_of
from shared.errors import Corrupt
from shared.log.batch import build_batch, decode_batch, split_batch
from shared.memtable.memtable import Memtable
from shared.records.model import Op, batch_schema
from shared.segment.segment_set import SegmentSet


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


def _payload() -> bytes:
    """A payload with everything that a batch may have, a few KB."""
    ids = [f"id-{i}é" for i in range(40)]
    documents = [f"doc é {i}" if i % 3 else None for i in range(40)]
    metadatas = [b'{"k":2.0}' if i % 2 else None for i in range(40)]
    batch = build_batch(Op.UPSERT, ids, np.ones((37, 4), dtype=np.float32), np.arange(37), documents, metadatas)
    return split_batch(batch, Layout(0, 1))[0][0].payload


@pytest.mark.parametrize("seed", range(4))
def test_a_payload_with_flipped_bits_is_corrupt_or_can_be_applied(seed: int) -> None:
    """What a decoder accepts, everything behind it follows blindly: a wrong offset would end the process. (The entry's
    checksum comes before; entries of version 0.1.0 have none.)
    """
    chance, payload, accepted = random.Random(seed), _payload(), 0
    for _ in range(1200):
        damaged = bytearray(payload)
        for _ in range(chance.choice([1, 1, 2, 5])):
            at = chance.randrange(len(damaged)) if chance.random() < 0.5 else chance.randrange(1600)
            damaged[at] ^= 1 << chance.randrange(8)
        try:
            batch = decode_batch(bytes(damaged))
        except Corrupt:
            continue
        accepted += 1
        batch.to_pylist()
        with contextlib.suppress(Corrupt):
            Memtable(SegmentSet([], []), None).apply(batch, 1, 41)
    assert accepted


def _crafted(column: str, buffer: int, change: Callable[[np.ndarray], None], of: type = np.int32) -> bytes:
    """The payload, with `change` made to one of the column's buffers."""
    payload = _payload()
    found = decode_batch(payload).column(column).buffers()[buffer]
    start, changed = found.address - pa.py_buffer(payload).address, bytearray(payload)
    change(np.frombuffer(changed, dtype=of, count=found.size // np.dtype(of).itemsize, offset=start))
    return bytes(changed)


@pytest.mark.parametrize("column", ["id", "document", "metadata"])
@pytest.mark.parametrize("offset", [-1, 1 << 20, (1 << 31) - 1, -(1 << 31)])
@pytest.mark.parametrize("place", [0, 1, 20, 40])
def test_an_offset_that_leads_out_of_its_column_is_corrupt(column: str, offset: int, place: int) -> None:
    def change(offsets: np.ndarray) -> None:
        offsets[place] = offset

    with pytest.raises(Corrupt):
        decode_batch(_crafted(column, 1, change))


@pytest.mark.parametrize("column", ["id", "document", "metadata"])
def test_text_that_is_not_utf_8_is_corrupt(column: str) -> None:
    def change(text: np.ndarray) -> None:
        text[3] = 0xFF

    with pytest.raises(Corrupt):
        decode_batch(_crafted(column, 2, change, np.uint8))


def test_an_operation_of_an_unknown_kind_is_corrupt() -> None:
    def change(codes: np.ndarray) -> None:
        codes[7] = 4

    with pytest.raises(Corrupt, match="unknown kind 4"):
        Memtable(SegmentSet([], []), None).apply(decode_batch(_crafted("op", 1, change, np.uint8)), 1, 41)
