"""The memtable against a dict: whatever is applied, every read as of every position shows what the dict showed then."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.errors import Corrupt
from shared.memtable.memtable import Memtable
from shared.memtable.versions import Tail
from shared.records.model import Op, batch_schema, record_schema
from tests.shared.memtable.model import DIMENSION, DictBase, Operation, Row, batch, step

EMPTY = DictBase({})
_ids = st.sampled_from([f"id{i}" for i in range(8)])
_vectors = st.tuples(*[st.integers(-5, 5).map(float)] * DIMENSION)
_metadata = st.none() | st.dictionaries(
    st.sampled_from("abc"), st.sampled_from([None, 1, 2.0, "null", True, [1, 2]]), max_size=3
)
_texts = st.none() | st.sampled_from(["", "x", "null"])


def _operations(ops: list[Op], vectors: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.builds(
        Operation, st.sampled_from(ops), _ids, vector=vectors, document=_texts, metadata=_metadata, uri=_texts
    )


_batches = st.lists(_operations([Op.ADD, Op.UPSERT], _vectors), max_size=6) | st.lists(
    st.one_of(
        _operations([Op.ADD, Op.UPSERT], _vectors),
        _operations([Op.UPDATE], st.none() | _vectors),
        st.builds(Operation, st.just(Op.DELETE), _ids),
    ),
    max_size=6,
)


def shown(memtable: Memtable, base: DictBase, position: int) -> dict[str, Row]:
    """Everything that a read as of `position` sees, from tail and base."""
    tail = memtable.at(position)
    found = {tail.ids[row]: _row(tail, row) for row in np.flatnonzero(tail.alive).tolist()}
    assert len(found) == int(tail.alive.sum()), "two live versions of one id"
    for number, segment in enumerate(base.segments):
        dead = set(memtable.deleted_rows(number, position).tolist())
        for row, (id_, content) in enumerate(segment):
            if row not in dead:
                assert id_ not in found, "a live record in two places"
                found[id_] = content
    return found


def _row(tail: Tail, row: int) -> Row:
    metadata = tail.metadatas[row]
    return Row(
        tuple(tail.vectors[row].tolist()),
        tail.documents[row],
        {} if metadata is None else orjson.loads(metadata),
        tail.uris[row],
        int(tail.inserted[row]),
    )


class MemtableMachine(RuleBasedStateMachine):
    """Batches on a memtable over a base; sometimes a compaction turns the state into the next base."""

    @initialize(cut=st.integers(0, 4))
    def begin(self, cut: int) -> None:
        self.state: dict[str, Row] = {}
        self.head = 1
        self.cut = cut
        self._rebase()

    def _rebase(self) -> None:
        self.base = DictBase(self.state, self.cut)
        self.memtable = Memtable(self.base, DIMENSION if self.state else None)
        self.history = {self.head: dict(self.state)}

    @rule(operations=_batches, gap=st.integers(0, 2))
    def write(self, operations: list[Operation], gap: int) -> None:
        """Positions of other shards lie between ours: `gap` makes offsets sparse."""
        stride = gap + 1
        offsets = [i * stride for i in range(len(operations))]
        end = self.head + max(1, len(operations) * stride)
        for offset, operation in zip(offsets, operations, strict=True):
            step(self.state, operation, self.head + offset)
        self.memtable.apply(batch(operations, offsets), self.head, end)
        self.head = end
        self.history[end] = dict(self.state)

    @precondition(lambda self: len(self.history) > 1)
    @rule()
    def compact(self) -> None:
        table = self.memtable.live_table()
        assert table.column("inserted").to_pylist() == sorted(table.column("inserted").to_pylist())
        killed = self.memtable.deleted()
        kept = {
            id_
            for number, segment in enumerate(self.base.segments)
            for row, (id_, _) in enumerate(segment)
            if row not in killed.get(number, [])
        }
        live = set(table.column("id").to_pylist())
        assert not kept & live
        assert kept | live == set(self.state)
        for record in table.to_pylist():
            row = self.state[record["id"]]
            assert tuple(record["embedding"]) == row.vector
            assert (record["document"], record["uri"], record["inserted"]) == (row.document, row.uri, row.inserted)
            assert record["metadata"] is None if not row.metadata else orjson.loads(record["metadata"]) == row.metadata
        self._rebase()

    @precondition(lambda self: len(self.history) > 1)
    @rule(data=st.data(), cut=st.integers(0, 4))
    def go_on_over_a_later_base(self, data: st.DataObject, cut: int) -> None:
        """A compaction of a part of the tail, while the rest goes on."""
        covers = data.draw(st.sampled_from(sorted(self.history)))
        old, shown_before = self.memtable, shown(self.memtable, self.base, self.head)
        old_base = self.base
        self.base = DictBase(self.history[covers], cut)
        self.memtable = old.rebased(self.base, covers)
        self.history = {position: state for position, state in self.history.items() if position >= covers}
        assert shown(old, old_base, self.head) == shown_before

    @invariant()
    def every_position_shows_what_was_true_then(self) -> None:
        self.memtable.check()
        for position, state in self.history.items():
            assert shown(self.memtable, self.base, position) == state

    @invariant()
    def an_id_is_found_where_it_is(self) -> None:
        everything = [f"id{i}" for i in range(8)]
        for position, state in self.history.items():
            tail = self.memtable.at(position)
            rows = self.memtable.find(everything, tail)
            refs = self.base.find(everything)
            for id_, row, ref in zip(everything, rows.tolist(), refs, strict=True):
                in_base = ref is not None and ref[1] not in self.memtable.deleted_rows(ref[0], position)
                assert (row >= 0) + in_base == (id_ in state)
                if row >= 0:
                    assert _row(tail, row) == state[id_]


MemtableMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=20, deadline=None, derandomize=True)
TestAgainstADict = MemtableMachine.TestCase


def _adds(count: int, first: int = 0) -> list[Operation]:
    return [Operation(Op.ADD, f"r{i}", (float(i), 0.0, 0.0), f"doc {i}", {"n": i}) for i in range(first, first + count)]


def test_a_big_batch_of_new_ids_is_taken_as_columns_with_the_same_result() -> None:
    operations = [*_adds(700), Operation(Op.UPSERT, "n", (1.0, 2.0, 3.0), None, {"a": None, "b": 2.0}, "u")]
    whole, single = Memtable(EMPTY, DIMENSION), Memtable(EMPTY, DIMENSION)
    whole.apply(batch(operations), 5, 5 + len(operations))
    for i, operation in enumerate(operations):
        single.apply(batch([operation]), 5 + i, 6 + i)
    whole.check()
    assert whole.live_table().equals(single.live_table())
    assert whole.live_table().column("metadata")[-1].as_py() == '{"b":2.0}'


def test_the_live_table_has_the_schema_of_records() -> None:
    memtable = Memtable(EMPTY, None)
    memtable.apply(batch(_adds(3)), 1, 4)
    schema = record_schema(DIMENSION)
    assert memtable.live_table().schema == schema.remove(schema.get_field_index("digest"))
    assert memtable.dimension == DIMENSION


def test_an_empty_tail_has_an_empty_table() -> None:
    memtable = Memtable(EMPTY, None)
    memtable.apply(batch([Operation(Op.UPDATE, "nobody", document="x")]), 1, 2)
    assert memtable.live_table().num_rows == 0
    assert memtable.deleted() == {}


def test_a_reader_keeps_its_view_while_the_tail_grows_and_its_records_die() -> None:
    memtable = Memtable(EMPTY, None)
    memtable.apply(batch(_adds(100)), 1, 101)
    tail = memtable.at(101)
    before = tail.vectors.copy()
    memtable.apply(batch([Operation(Op.DELETE, f"r{i}") for i in range(50)]), 101, 151)
    memtable.apply(batch(_adds(5000, first=1000)), 151, 5151)
    again = memtable.at(101)
    assert np.array_equal(tail.vectors, before)
    assert tail.alive.all()
    assert again.alive.all()
    assert (again.rows, memtable.at(5151).alive.sum()) == (100, 5050)


def test_readers_in_threads_see_whole_prefixes_while_one_thread_applies() -> None:
    memtable = Memtable(EMPTY, None)
    rounds, size = 60, 40
    memtable.apply(batch(_adds(size)), 1, 1 + size)
    done = [1 + size]

    def read(_number: int) -> None:
        while done[-1] < 1 + rounds * size:
            position = done[-1]
            tail = memtable.at(position)
            assert int(tail.alive.sum()) == size
            live = np.flatnonzero(tail.alive)
            assert set(tail.vectors[live, 1].tolist()) == {float((position - 1) // size - 1)}
            found = memtable.find([f"r{i}" for i in range(size)], tail)
            assert sorted(found.tolist()) == live.tolist()

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, number) for number in range(2)]
        for number in range(1, rounds):
            first = 1 + number * size
            updates = [Operation(Op.UPDATE, f"r{i}", (float(i), float(number), 0.0)) for i in range(size)]
            memtable.apply(batch(updates), first, first + size)
            done.append(first + size)
        for reader in readers:
            reader.result(timeout=30)
    memtable.check()


def test_a_sliced_batch_and_null_embeddings_are_read_right() -> None:
    operations = [*_adds(4), Operation(Op.UPDATE, "r3", None, "new"), Operation(Op.UPDATE, "r2", (9.0, 9.0, 9.0))]
    memtable = Memtable(EMPTY, DIMENSION)
    memtable.apply(batch(operations).slice(2, 4), 1, 7)
    rows = {row["id"]: row for row in memtable.live_table().to_pylist()}
    assert rows["r3"]["embedding"] == [3.0, 0.0, 0.0]
    assert rows["r3"]["document"] == "new"
    assert rows["r2"]["embedding"] == [9.0, 9.0, 9.0]


def test_a_batch_of_another_dimension_is_corrupt() -> None:
    memtable = Memtable(EMPTY, DIMENSION + 1)
    with pytest.raises(Corrupt):
        memtable.apply(batch(_adds(1)), 1, 2)


def test_a_batch_outside_its_append_is_corrupt() -> None:
    memtable = Memtable(EMPTY, None)
    with pytest.raises(Corrupt):
        memtable.apply(batch(_adds(2)), 1, 2)


def test_a_batch_without_embeddings_needs_no_dimension() -> None:
    memtable = Memtable(DictBase({"r": Row((1.0, 2.0, 3.0), None, {}, None, 1)}), None)
    memtable.dimension = DIMENSION
    deletes = batch([Operation(Op.DELETE, "r")])
    assert deletes.schema == batch_schema(None)
    memtable.apply(deletes, 2, 3)
    assert {segment: rows.tolist() for segment, rows in memtable.deleted().items()} == {1: [0]}
    assert isinstance(memtable.live_table(), pa.Table)
