"""A collection on a real log, real segments and a real query worker, searched through the frontend's own code."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from frontend.collections.configuration import VectorSettings
from frontend.collections.forking import Forker
from frontend.collections.schema import indexing_of, reconciled
from frontend.collections.schema_shape import given_schema
from frontend.parse.metadata_values import read_metadatas
from frontend.parse.search import check_search, read_search
from frontend.read.reader import Reader
from frontend.read.search_requests import check_indexes, searches_of
from frontend.read.workers import Begin, Workers
from shared.catalog import Catalog, Database, NewCollection
from shared.catalog import Collection as Row
from shared.catalog.forking import Forking
from shared.catalog.rows import new_row
from shared.catalog.scripts import CatalogScripts
from shared.cluster.placement import Layout
from shared.history.past_log import PastLog
from shared.log.forks import Forks
from shared.process.clock import SystemClock
from shared.records.model import Op
from shared.redis.keys import Keys
from shared.rpc.client import RpcClient
from shared.rpc.method import RawMethod
from shared.rpc.query_worker_methods import ReadRequest
from shared.vectors.space import Space
from tests.frontend.fakes import FakeRows, new_collection
from tests.model.reference import Collection as Model
from tests.model.reference import Row as Written
from tests.queryworker.world import DirectCall, Worker, World, open_world
from tests.shared.memtable.model import Operation

SCHEMA: dict[str, Any] = {
    "defaults": {},
    "keys": {
        "sv": {"sparse_vector": {"sparse_vector_index": {"enabled": True, "config": {}}}},
        "bm": {"sparse_vector": {"sparse_vector_index": {"enabled": True, "config": {"bm25": True}}}},
    },
}


class DirectWorkers(Workers):
    """The frontend's workers, one of which is right here."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._rpc = RpcClient()
        self.calls = 0

    async def _call(self, method: RawMethod[Any], request: ReadRequest, begin: Begin[Any]) -> Any:
        self.calls += 1
        call = DirectCall(request)
        self._worker.methods[method.name]([call])
        try:
            return memoryview(await call.outcome)
        except asyncio.CancelledError:
            call.abandon()
            raise


@dataclass
class Searched:
    """`model` has what `world` should."""

    world: World
    row: Row
    model: Model
    workers: DirectWorkers
    keys: Keys

    async def fork(self) -> Searched:
        """By the frontend's own code; the same worker serves it."""
        world, place = self.world, Database("", "db", "", "")
        catalog = Catalog(world.redis, self.keys)
        fixed = {"space": self.model.space, "shards": world.shards, "ef_construction": 100, "max_neighbors": 16}
        new = NewCollection(world.collection, None, {}, self.row.schema, fixed)
        if await catalog.collections.get_by_id(place, world.collection) is None:  # the first collection of all
            await CatalogScripts(world.redis, self.keys).collections(
                "db", "create", new.name, world.collection, new_row(new)
            )
        forking, forks = Forking(world.redis, self.keys, catalog.collections), Forks(world.redis, self.keys)
        forker = Forker(
            catalog.collections,
            forking,
            forks,
            world.log,
            PastLog(world.log, world.objects),
            world.objects,
            SystemClock(),
            256,
            "test",
        )
        forked = await forker.fork(place, world.collection, f"fork {uuid.uuid4()}")
        apart = dataclasses.replace(world, collection=forked.id, state=dict(world.state), states=dict(world.states))
        row, model = dataclasses.replace(self.row, id=forked.id), copy.deepcopy(self.model)
        return Searched(apart, row, model, self.workers, self.keys)

    async def write(self, op: Op, rows: Sequence[Written]) -> None:
        if not rows:
            return
        patch = op is not Op.ADD
        texts = read_metadatas([row.metadata for row in rows], patch=patch).texts()
        operations = [
            Operation(op, row.id, row.embedding, row.document, None if text is None else orjson.loads(text), row.uri)
            for row, text in zip(rows, texts, strict=True)
        ]
        await self.world.write(operations)
        {Op.ADD: self.model.add, Op.UPSERT: self.model.upsert, Op.UPDATE: self.model.update}[op](rows)

    async def delete(self, ids: Sequence[str]) -> None:
        if ids:
            await self.world.write([Operation(Op.DELETE, id_) for id_ in ids])
            self.model.delete(ids)

    async def search(self, *payloads: dict[str, Any], read_level: str = "index_and_wal") -> Any:
        """The client's answer."""
        body = read_search(orjson.loads(orjson.dumps({"searches": payloads, "read_level": read_level})))
        check_search(body.searches)
        check_indexes(self.row, body)
        reader = Reader(self.workers, FakeRows(self.row), self.world.log)  # type: ignore[arg-type]
        found = await reader.search(self.row, searches_of(self.row, body))
        assert isinstance(found, bytes | memoryview)
        return orjson.loads(found)


@contextlib.asynccontextmanager
async def open_searched(
    url: str, keys: Keys, directory: Path, *, shards: int = 1, space: str = "l2", dimension: int = 3
) -> AsyncIterator[Searched]:
    schema, _ = reconciled(given_schema(SCHEMA), VectorSettings())
    async with open_world(
        url, keys, directory, shards=shards, space=Space(space), indexing=indexing_of(schema)
    ) as world:
        row = new_collection(id=world.collection, schema=schema, dimension=dimension, layout=Layout(0, shards))
        yield Searched(world, row, Model(world.collection, "", space, None), DirectWorkers(world.worker), keys)
