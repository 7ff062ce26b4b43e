"""Random operations on a few collections, each answer compared with the plain model's.

A collection lives in a bundle by its key in `self.collections`; a dropped one is consumed.
"""

import copy
import itertools
import struct
import uuid
from typing import Any, Final, Protocol

import httpx
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.model import strategies
from tests.model.api import Api, Refused
from tests.model.reference import Collection, Record, Row, distance

ALL_COLUMNS: Final = ("documents", "metadatas", "uris", "embeddings")
NAMES: Final = ("one", "two", "three")


class Disturbance(Protocol):
    """What the machine may do to the server behind the model's back: no answer may change by it."""

    def wait_for_compaction(self, api: Api, name: str, operations: int) -> None: ...

    def restart_queryworker(self) -> None: ...

    def restart_compactor(self) -> None: ...


def float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


class Machine(RuleBasedStateMachine):
    """Set `client` (and `disturbance`, where there is a cluster to disturb) on a subclass."""

    client: httpx.Client
    disturbance: Disturbance | None = None

    @initialize(space=st.sampled_from(strategies.SPACES), rows=strategies.new_rows)
    def begin(self, space: str, rows: list[Row]) -> None:
        self.api = Api(self.client, f"model-{uuid.uuid4().hex}")
        self.collections: dict[str, Collection] = {}
        self.create("one", space, get_or_create=False)
        self.api.write(self.collections["one"].id, "add", rows)
        self.collections["one"].add(rows)

    # ---- collections

    @rule(name=st.sampled_from(NAMES), space=st.sampled_from(strategies.SPACES), get_or_create=st.booleans())
    def create(self, name: str, space: str, get_or_create: bool) -> None:
        metadata = {"made with": space}
        if name not in self.collections:
            self.collections[name] = self._created(
                self.api.create(name, space, metadata, get_or_create), space, metadata
            )
        elif get_or_create:
            assert self.api.create(name, space, None, get_or_create)["id"] == self.collections[name].id
        else:
            self._refused(409, self.api.create, name, space, metadata)

    @precondition(lambda self: self.collections)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        # Rarely: most of the machine's time belongs to records.
        name = self._pick(data)
        if data.draw(st.integers(0, 3)):
            return
        gone = self.collections.pop(name)
        self.api.drop(name)
        self._refused(404, self.api.drop, name)
        self._refused(404, self.api.count, gone.id)

    @precondition(lambda self: self.collections)
    @rule(data=st.data(), new=st.sampled_from(NAMES))
    def rename(self, data: st.DataObject, new: str) -> None:
        old = self._pick(data)
        collection = self.collections[old]
        if new != old and new in self.collections:
            self._refused(409, self.api.modify, collection.id, new_name=new)
            return
        self.api.modify(collection.id, new_name=new)
        collection.name = new
        self.collections[new] = self.collections.pop(old)

    @precondition(lambda self: self.collections)
    @rule(data=st.data(), new=st.sampled_from(NAMES))
    def fork(self, data: st.DataObject, new: str) -> None:
        collection = self.collections[self._pick(data)]
        if new in self.collections:
            self._refused(409, self.api.fork, collection.id, new)
            return
        forked = copy.deepcopy(collection)
        forked.id, forked.name = self.api.fork(collection.id, new)["id"], new
        self.collections[new] = forked

    @precondition(lambda self: self.collections)
    @rule(data=st.data())
    def describe(self, data: st.DataObject) -> None:
        collection = self.collections[self._pick(data)]
        answer = self.api.collection(collection.name)
        assert answer["id"] == collection.id
        assert answer["metadata"] == collection.metadata
        assert answer["dimension"] == collection.dimension
        assert answer["configuration_json"]["hnsw"]["space"] == collection.space
        listed = {row["name"]: row["id"] for row in self.api.collections()}
        assert listed == {name: collection.id for name, collection in self.collections.items()}
        assert self.api.collections_count() == len(self.collections)

    # ---- writes

    @precondition(lambda self: self.collections)
    @rule(data=st.data(), rows=strategies.new_rows)
    def add(self, data: st.DataObject, rows: list[Row]) -> None:
        collection = self.collections[self._pick(data)]
        self.api.write(collection.id, "add", rows)
        collection.add(rows)

    @precondition(lambda self: self.collections)
    @rule(data=st.data(), rows=strategies.upserted_rows)
    def upsert(self, data: st.DataObject, rows: list[Row]) -> None:
        collection = self.collections[self._pick(data)]
        self.api.write(collection.id, "upsert", rows)
        collection.upsert(rows)

    @precondition(lambda self: self.collections)
    @rule(data=st.data(), rows=strategies.updated_rows)
    def update(self, data: st.DataObject, rows: list[Row]) -> None:
        collection = self.collections[self._pick(data)]
        self.api.write(collection.id, "update", rows)
        collection.update(rows)

    @precondition(lambda self: self.collections)
    @rule(data=st.data(), ids=strategies.id_lists.filter(bool))
    def delete_ids(self, data: st.DataObject, ids: list[str]) -> None:
        collection = self.collections[self._pick(data)]
        assert self.api.records(collection.id, "delete", {"ids": ids}) == {"deleted": len(ids)}
        collection.delete(ids)

    @precondition(lambda self: self.collections)
    @rule(data=st.data(), selection=strategies.selections, limit=st.none() | st.integers(0, 4))
    def delete_matching(self, data: st.DataObject, selection: dict[str, Any], limit: int | None) -> None:
        if selection["where"] is None and selection["where_document"] is None:
            return
        collection = self.collections[self._pick(data)]
        doomed = self._matching(collection, selection)[:limit]
        assert self.api.records(collection.id, "delete", {**selection, "limit": limit}) == {"deleted": len(doomed)}
        collection.delete(doomed)

    @precondition(lambda self: self.collections)
    @rule(data=st.data(), operation=st.sampled_from(("add", "upsert", "update")))
    def write_another_dimension(self, data: st.DataObject, operation: str) -> None:
        collection = self.collections[self._pick(data)]
        if collection.dimension is not None:
            row = Row("id0", (1.0,) * (collection.dimension + 1), None, None, None)
            self._refused(400, self.api.write, collection.id, operation, [row])

    # ---- reads

    @precondition(lambda self: self.collections)
    @rule(data=st.data())
    def count(self, data: st.DataObject) -> None:
        collection = self.collections[self._pick(data)]
        assert self.api.count(collection.id) == len(collection.records)

    @precondition(lambda self: self.collections)
    @rule(
        data=st.data(),
        selection=strategies.selections,
        limit=st.none() | st.integers(0, 5),
        offset=st.integers(0, 3),
        include=st.lists(st.sampled_from(ALL_COLUMNS), unique=True),
    )
    def get(
        self, data: st.DataObject, selection: dict[str, Any], limit: int | None, offset: int, include: list[str]
    ) -> None:
        collection = self.collections[self._pick(data)]
        ids = self._matching(collection, selection)[offset:][:limit]
        body = {**selection, "limit": limit, "offset": offset, "include": include}
        self._check_get(self.api.records(collection.id, "get", body), collection, ids, include)

    @precondition(lambda self: self.collections)
    @rule(data=st.data(), page=st.integers(1, 4))
    def page_through(self, data: st.DataObject, page: int) -> None:
        collection = self.collections[self._pick(data)]
        seen: list[str] = []
        for offset in itertools.count(0, page):
            ids = self.api.records(collection.id, "get", {"limit": page, "offset": offset, "include": []})["ids"]
            seen += ids
            if len(ids) < page:
                break
        assert seen == list(collection.records)

    @precondition(lambda self: self.collections)
    @rule(
        data=st.data(),
        queries=st.lists(strategies.vectors, min_size=1, max_size=3),
        k=st.integers(0, 15),
        selection=strategies.selections,
    )
    def query(self, data: st.DataObject, queries: list[tuple[float, ...]], k: int, selection: dict[str, Any]) -> None:
        collection = self.collections[self._pick(data)]
        body = {"query_embeddings": queries, "n_results": k, **selection, "include": [*ALL_COLUMNS, "distances"]}
        candidates = self._matching(collection, selection)
        unfiltered = selection["where"] is None and selection["where_document"] is None
        if selection["ids"] and unfiltered and not candidates and k and collection.dimension is not None:
            # Ids of which none exists are an error, as Chroma's own tests want it; unknown ones beside known are not.
            self._refused(400, self.api.records, collection.id, "query", body)
            return
        answer = self.api.records(collection.id, "query", body)
        assert len(answer["ids"]) == len(queries)
        for number, query in enumerate(queries):
            self._check_nearest(answer["ids"][number], answer["distances"][number], collection, candidates, query, k)
            for place, record_id in enumerate(answer["ids"][number]):
                row = {column: answer[column][number][place] for column in ALL_COLUMNS}
                self._check_record(row, collection.records[record_id])

    # ---- behind the model's back

    @precondition(lambda self: self.disturbance and self.collections)
    @rule(data=st.data())
    def wait_for_compaction(self, data: st.DataObject) -> None:
        collection = self.collections[self._pick(data)]
        assert self.disturbance is not None
        self.disturbance.wait_for_compaction(self.api, collection.name, collection.operations)

    @precondition(lambda self: self.disturbance)
    @rule(choice=st.integers(0, 5))
    def restart(self, choice: int) -> None:
        assert self.disturbance is not None
        if choice == 0:
            self.disturbance.restart_queryworker()
        elif choice == 1:
            self.disturbance.restart_compactor()

    def teardown(self) -> None:
        for collection in getattr(self, "collections", {}).values():
            answer = self.api.records(collection.id, "get", {"include": list(ALL_COLUMNS)})
            self._check_get(answer, collection, list(collection.records), list(ALL_COLUMNS))

    # ---- helpers

    def _pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.collections)), label="collection")

    @staticmethod
    def _created(answer: dict[str, Any], space: str, metadata: dict[str, Any] | None) -> Collection:
        assert answer["dimension"] is None
        return Collection(id=answer["id"], name=answer["name"], space=space, metadata=metadata)

    @staticmethod
    def _matching(collection: Collection, selection: dict[str, Any]) -> list[str]:
        return collection.matching(selection["ids"], selection["where"], selection["where_document"])

    @staticmethod
    def _refused(status: int, call: Any, *arguments: Any, **keywords: Any) -> None:
        with pytest.raises(Refused) as refused:
            call(*arguments, **keywords)
        assert refused.value.status == status

    def _check_get(self, answer: dict[str, Any], collection: Collection, ids: list[str], include: list[str]) -> None:
        assert answer["ids"] == ids
        assert answer["include"] == include
        for column in ALL_COLUMNS:
            assert (answer[column] is not None) == (column in include)
        for place, record_id in enumerate(ids):
            self._check_record({column: answer[column][place] for column in include}, collection.records[record_id])

    @staticmethod
    def _check_record(row: dict[str, Any], record: Record) -> None:
        if "embeddings" in row:
            assert row["embeddings"] == pytest.approx(record.embedding, rel=1e-6)
        if "documents" in row:
            assert row["documents"] == record.document, f"{row} is not {record}"
        if "uris" in row:
            assert row["uris"] == record.uri
        if "metadatas" in row:
            # Types too: 1, 1.0 and True are equal to Python and different on the wire.
            assert repr(_sorted(row["metadatas"])) == repr(_sorted(record.shown_metadata))

    @staticmethod
    def _check_nearest(
        ids: list[str],
        distances: list[float],
        collection: Collection,
        candidates: list[str],
        query: tuple[float, ...],
        k: int,
    ) -> None:
        assert len(ids) == min(k, len(candidates))
        assert len(set(ids)) == len(ids)
        assert set(ids) <= set(candidates)
        exact = {
            record_id: distance(
                collection.space,
                tuple(map(float32, query)),
                tuple(map(float32, collection.records[record_id].embedding)),
            )
            for record_id in candidates
        }
        assert distances == pytest.approx([exact[record_id] for record_id in ids], rel=1e-4, abs=1e-5)
        assert distances == sorted(distances)
        assert distances == pytest.approx(sorted(exact.values())[: len(ids)], rel=1e-4, abs=1e-5)


def _sorted(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if metadata is None else dict(sorted(metadata.items()))
