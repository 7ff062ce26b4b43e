"""A small cluster without processes: a real Redis, a bucket in a directory, a compactor and a query worker that are
called. One collection of two shards, with everything that a bucket and a log can hold.
"""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
from redis.asyncio import Redis

from compactor.checkpoints import Checkpoints
from compactor.compaction import Compactor, Ending, ResourceLimits
from logservice.catalog.snapshots import Snapshots
from polychrome.verify.bucket import Sample
from polychrome.verify.commands import Verified, verify
from polychrome.verify.model import Report
from shared.catalog import Catalog, Collection, Database
from shared.catalog.damage import Damages
from shared.catalog.image import Images
from shared.catalog.journal_entry import JournalEntry, SlotChanges
from shared.cluster.placement import shard_of
from shared.history.sealed_log import encode_sealed
from shared.limits import GRAPH_ROWS_MIN
from shared.log.append import AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.log import Log
from shared.log.state import after_position
from shared.manifest.roots import RootStore, make_root
from shared.objects.directory import open_directory
from shared.objects.keys import SealedRange
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.records.model import FIRST_POSITION, Op
from shared.redis.client import command, open_redis
from shared.redis.keys import Keys
from shared.rpc import messages
from shared.segment.cache import SegmentCache
from shared.tenancy.erasure_marks import ErasureMarks
from tests.queryworker.world import Worker
from tests.shared.log.appending import make_cluster, make_collection
from tests.shared.log.rounds import begin_round

DIMENSION = 4
Records = dict[str, tuple[tuple[float, ...], str | None, str | None]]
"""Vector, document and metadata (JSON) by id."""


@dataclass
class SmallCluster:
    """The cluster, and what its collection should hold."""

    redis: Redis
    keys: Keys
    objects: ObjectStore
    folder: Path
    catalog: Catalog
    database: Database
    collection: Collection
    truth: Records = field(default_factory=dict)

    @property
    def bucket(self) -> Path:
        return self.folder / "bucket"

    @property
    def log(self) -> Log:
        return Log(self.redis, self.keys)

    async def write(self, op: Op, ids: list[str], seed: int) -> None:
        """Appends records of these ids, each as the seed makes it."""
        vectors = np.random.default_rng(seed).random((len(ids), DIMENSION), np.float32)
        documents = [f"text {seed} of {id_}" for id_ in ids]
        metadatas = [orjson.dumps({"n": number % 9, "seed": seed}).decode() for number in range(len(ids))]
        if op is Op.DELETE:
            batch = build_batch(op, ids)
        else:
            batch = build_batch(op, ids, vectors, None, documents, metadatas, [None] * len(ids))
        request = AppendRequest(
            collection_id=self.collection.id,
            request_id=uuid.uuid4().hex,
            batches=split_batch(batch, self.collection.layout),
            dimension=None if op is Op.DELETE else DIMENSION,
            generation=None,
        )
        await self.log.append(request)
        for number, id_ in enumerate(ids):
            self.truth.pop(id_, None)
            if op is not Op.DELETE:
                self.truth[id_] = (tuple(vectors[number].tolist()), documents[number], metadatas[number])

    def compactor(self) -> Compactor:
        """One that has nothing cached."""
        scratch = self.folder / f"compactor-{uuid.uuid4().hex}"
        for name in ("building", "segments"):
            (scratch / name).mkdir(parents=True)
        clock = SystemClock()
        return Compactor(
            self.log, self.objects, SegmentCache(self.objects, scratch / "segments", 1 << 40), scratch / "building",
            Checkpoints(clock), clock, ResourceLimits(2, 1 << 30), "test", Damages(self.redis, self.keys),
            ErasureMarks(self.redis, self.keys),
        )  # fmt: skip

    async def compact(self) -> list[Ending]:
        """A compaction of every shard, trimmed."""
        endings = []
        await begin_round(self.redis, self.keys, self.collection.id)
        for shard in self.collection.layout.numbers:
            endings.append(await self.compactor().compact(self.collection.id, shard))
            [state] = await self.log.states([(self.collection.id, shard)])
            assert state is not None
            if state.pointer is not None:
                await self._seal(shard, state.trimmed or FIRST_POSITION, state.pointer.covers)
                await self.log.trim(self.collection.id, shard, state.pointer, state.epoch)
        return endings

    async def _seal(self, shard: int, first: int, end: int) -> None:
        """Keeps what is going to be trimmed, as for a collection with a history."""
        read = await self.log.read(self.collection.id, shard, after_position(first))
        entries = [entry for entry in read.entries if entry.end <= end]
        if entries:
            sealed = SealedRange(self.collection.id, shard, first, end)
            await self.objects.create(sealed.key, encode_sealed(sealed, entries))

    async def read(self) -> Records:
        """What a worker that has nothing cached answers. Raises Damaged."""
        cache = SegmentCache(self.objects, self.folder / f"worker-{uuid.uuid4().hex}", 1 << 40)
        await cache.open()
        worker = Worker(self.log, self.objects, cache, Damages(self.redis, self.keys))
        found: Records = {}
        try:
            for shard in self.collection.layout.numbers:
                request = messages.GetRequest(
                    messages.Shard(self.collection.id, shard), documents=True, metadatas=True, embeddings=True
                )
                columns = (await worker.get(request)).columns
                vectors = np.frombuffer(columns.embeddings or b"", "<f4").reshape(len(columns.ids), -1)
                for row, id_ in enumerate(columns.ids):
                    document, metadata = (columns.documents or [])[row], (columns.metadatas or [])[row]
                    found[id_] = (tuple(vectors[row].tolist()), document, metadata)
        finally:
            await worker.close()
        return found

    async def verify(self, *, redis: bool = True, share: float = 1.0) -> Report:
        """What `polychrome verify` finds."""
        place = Verified(self.objects, self.redis if redis else None, self.keys)
        return await verify(place, Sample(share), self.folder)

    async def close_round(self) -> None:
        """A root of the present manifests, and a snapshot of the catalog."""
        found = await self.catalog.collections.get_by_id(self.database, self.collection.id)
        assert found is not None
        pointers = list(found.pointers)
        root = make_root(found.id, 0, found.head, found.layout, pointers, "test", 0.0)
        await RootStore(self.objects).create(root)
        mark = await self.catalog.mark.read()
        assert mark is not None
        image = await Images(self.redis, self.keys, self.catalog).take(mark)
        snapshots = Snapshots(self.objects, 3)
        assert await snapshots.write(image, await snapshots.next_number())
        changes = SlotChanges(1, self.collection.tenant, self.collection.database, collections=image.collections)
        entry = JournalEntry(mark.id, mark.epoch, image.changes + 1, "ab12", 0.0, [changes])
        await self.objects.create(entry.key, entry.encode())

    async def entries(self) -> list[tuple[str, str, dict[bytes, bytes]]]:
        """Every entry of every stream: the stream's key, the entry's id, its fields."""
        found = []
        for shard in self.collection.layout.numbers:
            key = self.keys.log(self.collection.id, shard)
            for id_, fields in await command(self.redis, "XRANGE", key, "-", "+"):
                found.append((key, id_.decode(), fields))
        return found


@contextlib.asynccontextmanager
async def small_cluster(url: str, keys: Keys, folder: Path, rows: int = GRAPH_ROWS_MIN) -> AsyncIterator[SmallCluster]:
    """Two shards, the first with `rows` records or more and all files that a segment can have. Two compactions lie
    behind it, a root and a snapshot name them, and its log has some entries.
    """
    async with open_redis(url) as redis, open_directory(folder / "bucket") as objects:
        catalog, database = await make_cluster(redis, keys)
        collection = await make_collection(catalog, database, "small", shards=2)
        cluster = SmallCluster(redis, keys, objects, folder, catalog, database, collection)
        ids = [f"id-{number}" for number in range(3 * rows)]
        homes = shard_of(ids, 2).tolist()
        mine = [id_ for id_, home in zip(ids, homes, strict=True) if home == 0][:rows]
        others = [id_ for id_, home in zip(ids, homes, strict=True) if home == 1][:40]
        await cluster.write(Op.ADD, [*mine, *others], 1)
        await cluster.compact()
        await cluster.write(Op.UPSERT, [mine[3], others[3], *(f"more-{number}" for number in range(30))], 2)
        await cluster.write(Op.DELETE, [mine[5], others[5]], 3)
        await cluster.compact()
        await cluster.close_round()
        for seed in range(4, 7):
            await cluster.write(Op.UPSERT, random.Random(seed).sample(ids[:50], 4), seed)
        yield cluster
