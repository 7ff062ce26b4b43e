from __future__ import annotations

import dataclasses
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from compactor.checkpoints import Checkpoints
from compactor.compaction import Compactor, ResourceLimits
from compactor.rebuild import Rebuilder
from shared.catalog import Catalog, Collection, Database
from shared.catalog.damage import Damages
from shared.log.append import AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.jobs import Jobs
from shared.log.log import Log
from shared.log.rebuild import Rebuilds
from shared.log.state import ShardState
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.objects.directory import open_directory
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.records.model import Op
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from shared.segment.cache import SegmentCache
from shared.segment.reader import open_segment
from shared.tenancy.erasure_marks import ErasureMarks
from tests.redis_server import RedisServer, keys, valkey_server
from tests.shared.log.appending import make_cluster, make_collection
from tests.shared.objects.conftest import s3_bucket, s3_server

__all__ = ["keys", "s3_bucket", "s3_server", "valkey_server"]

DIMENSION = 4

Row = tuple[Any, str | None, dict[str, Any] | None, str | None]
"""What is written: vector (or None), document, metadata, uri."""

Record = tuple[tuple[float, ...], str | None, dict[str, Any], str | None, int]
"""What is kept: vector, document, metadata, uri, the position of the log entry that inserted it."""

Records = dict[str, Record]
"""By id."""


@pytest.fixture
async def redis(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(valkey_server.url) as client:
        yield client


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    async with open_directory(tmp_path / "bucket") as store:
        yield store


@dataclasses.dataclass
class Shop:
    """A collection, its log and bucket, what its records should be, and any number of compactors."""

    redis: Redis
    keys: Keys
    log: Log
    objects: ObjectStore
    catalog: Catalog
    collection: Collection
    folder: Path
    url: str = ""
    model: Records = dataclasses.field(default_factory=dict)
    numbers: itertools.count[int] = dataclasses.field(default_factory=itertools.count)

    def compactor(
        self, checkpoints: Checkpoints | None = None, *, fold_bytes: int = 1 << 30, objects: ObjectStore | None = None
    ) -> Compactor:
        clock = SystemClock()
        scratch = self.folder / f"compactor-{next(self.numbers)}"
        (scratch / "building").mkdir(parents=True)
        (scratch / "segments").mkdir()
        objects = objects or self.objects
        cache = SegmentCache(objects, scratch / "segments", 1 << 30)
        return Compactor(
            self.log, objects, cache, scratch / "building", checkpoints or Checkpoints(clock), clock,
            ResourceLimits(threads=2, fold_bytes=fold_bytes), scratch.name,
            Damages(self.redis, self.keys), ErasureMarks(self.redis, self.keys),
        )  # fmt: skip

    def rebuilder(self, checkpoints: Checkpoints | None = None, *, objects: ObjectStore | None = None) -> Rebuilder:
        clock = SystemClock()
        cached = self.folder / f"rebuilder-{next(self.numbers)}"
        cached.mkdir()
        objects = objects or self.objects
        cache = SegmentCache(objects, cached, 1 << 30)
        rebuilds, jobs = Rebuilds(self.redis, self.keys), Jobs(self.redis, self.keys)
        return Rebuilder(
            self.log, rebuilds, jobs, objects, cache, checkpoints or Checkpoints(clock), clock, "rebuilder"
        )

    async def refresh(self) -> None:
        """The collection as it is now."""
        found = await self.catalog.collections.get_by_id(await self.db(), self.collection.id)
        assert found is not None
        self.collection = found

    async def db(self) -> Database:
        database = await self.catalog.databases.get(self.collection.tenant, self.collection.database)
        assert database is not None
        return database

    async def state(self, shard: int = 0) -> ShardState:
        """What the log knows of a shard."""
        [state] = await self.log.states([(self.collection.id, shard)])
        assert state is not None
        return state

    async def write(self, op: Op, rows: Mapping[str, Row], *, vectors: bool = True) -> None:
        """Appends one batch: id -> (vector, document, metadata, uri); and applies it to the model."""
        ids = list(rows)
        batch = build_batch(
            op, ids,
            np.array([rows[i][0] for i in ids], np.float32).reshape(len(ids), -1) if vectors else None,
            None,
            [rows[i][1] for i in ids],
            [None if rows[i][2] is None else json.dumps(rows[i][2]) for i in ids],
            [rows[i][3] for i in ids],
        )  # fmt: skip
        request = AppendRequest(
            collection_id=self.collection.id,
            request_id=uuid.uuid4().hex,
            batches=split_batch(batch, self.collection.layout),
            dimension=DIMENSION if vectors else None,
            generation=None,
        )
        appended = await self.log.append(request)
        for offset, record_id in enumerate(ids):
            self._apply(op, record_id, rows[record_id], vectors, appended.first + offset)

    async def delete(self, ids: list[str]) -> None:
        await self.write(Op.DELETE, dict.fromkeys(ids, (None, None, None, None)), vectors=False)

    def _apply(self, op: Op, record_id: str, row: Row, vectors: bool, position: int) -> None:
        vector, document, metadata, uri = row
        old = self.model.get(record_id)
        if op is Op.DELETE:
            self.model.pop(record_id, None)
        elif old is None:
            if op is not Op.UPDATE:
                kept = {key: value for key, value in (metadata or {}).items() if value is not None}
                self.model[record_id] = (tuple(vector), document, kept, uri, position)
        elif op is not Op.ADD:
            patched = {key: value for key, value in {**old[2], **(metadata or {})}.items() if value is not None}
            self.model[record_id] = (
                tuple(vector) if vectors else old[0],
                old[1] if document is None else document,
                patched,
                old[3] if uri is None else uri,
                old[4],
            )

    async def manifest(self, shard: int = 0) -> Manifest | None:
        pointer = (await self.state(shard)).pointer
        return None if pointer is None else await ManifestStore(self.objects).load(self.collection.id, shard, pointer)

    async def published(self, shard: int = 0) -> Manifest:
        """The manifest that there must be."""
        manifest = await self.manifest(shard)
        assert manifest is not None
        return manifest

    async def records(self, shard: int = 0) -> Records:
        """What the bucket says, through files downloaded anew."""
        manifest = await self.published(shard)
        found: Records = {}
        for ref in manifest.segments:
            folder = self.folder / f"check-{next(self.numbers)}"
            folder.mkdir()
            for file in ref.info.files:
                await self.objects.download(f"{ref.info.path}/{file.name}", folder / file.name)
            segment = open_segment(folder, ref.info)
            dead = ref.bitmap()
            for row, record in enumerate(segment.records.to_pylist()):
                if row not in dead:
                    assert record["id"] not in found
                    found[record["id"]] = (
                        tuple(record["embedding"]), record["document"], json.loads(record["metadata"] or "{}"),
                        record["uri"], record["inserted"],
                    )  # fmt: skip
        return found


@pytest.fixture
async def shop(redis: Redis, keys: Keys, objects: ObjectStore, tmp_path: Path) -> Shop:
    catalog, database = await make_cluster(redis, keys)
    collection = await make_collection(catalog, database, "shop")
    return Shop(redis, keys, Log(redis, keys), objects, catalog, collection, tmp_path)
