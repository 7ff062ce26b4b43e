"""A bank on a real log, a real bucket and real compactions, without the processes around them.

Its accounts lie on all shards of one collection, and a transfer is one batch that writes two of them. So any state of
one moment has the sum that there was at the beginning, and is one that the bank had once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import shutil
import uuid
from pathlib import Path
from typing import Final

import numpy as np
from redis.asyncio import Redis

from compactor.apply_log import apply_log
from compactor.checkpoints import Checkpoints
from compactor.compaction import Compactor, Ending, ResourceLimits
from compactor.rebuild import Rebuilder
from compactor.sources import open_sources
from logservice.catalog.snapshots import Snapshots, Snapshotter
from logservice.garbage.collector import GarbageCollector
from logservice.garbage.plan import Periods
from logservice.leader import catalog_view
from logservice.restoring.reconcile import Reconciler
from logservice.scheduling.rounds import Rounds
from logservice.trimming.seal import Sealer
from logservice.trimming.trim import Trimmer
from shared.catalog import SHARDS_KEY, Catalog, Collection, Database, NewCollection
from shared.catalog.collector import Collector
from shared.catalog.damage import DamageReporter, Damages
from shared.catalog.history import Histories
from shared.catalog.image import Images
from shared.log.append import AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.cuts import Cuts
from shared.log.jobs import Jobs
from shared.log.log import Log
from shared.log.rebuild import Rebuilds
from shared.manifest.roots import RootStore
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.records.indexing import Indexing
from shared.records.model import Op
from shared.redis.keys import Keys
from shared.segment.cache import SegmentCache
from shared.segment.segment_set import SegmentSet
from shared.tenancy.erasure_marks import ErasureMarks
from tests.redis_server import RedisServer
from tests.shared.log.appending import FIXED

ACCOUNTS: Final = [f"account-{number}" for number in range(12)]
BALANCE: Final = 100

STEPS: Final = ("transfer",) * 3 + ("compact",) * 2 + ("round", "trim", "snapshot", "garbage", "rebuild", "copy")

Balances = dict[str, int]


class Bank:
    """The collection, the processes' parts around it, and every state that it was acknowledged to have."""

    def __init__(self, server: RedisServer, redis: Redis, keys: Keys, folder: Path, objects: ObjectStore) -> None:
        self.server = server
        self.folder = folder
        self.objects = objects
        self.redis, self.keys, self.clock = redis, keys, SystemClock()
        self.catalog, self.log, self.jobs = Catalog(redis, keys), Log(redis, keys), Jobs(redis, keys)
        self.images = Images(redis, keys, self.catalog)
        self.snapshots = Snapshots(objects, 3)
        self.history: dict[int, Balances] = {}
        """The balances below each position at which an append ended."""
        self.garbage_kept_s = 0.0
        """The retention: nothing is kept for its age."""
        self._numbers = itertools.count()
        self.become_leader()

    def become_leader(self) -> None:
        """A log service that knows nothing of the rounds before."""
        self.rounds = Rounds(Cuts(self.redis, self.keys), self.objects, self.clock)

    async def step(self, chance: random.Random, copies: list[Path]) -> None:
        """Something that one of the processes does, chosen by chance; or a copy of Redis is made."""
        match chance.choice(STEPS):
            case "transfer":
                await self.transfer(chance)
            case "round":
                await self.round()
            case "compact":
                await self.compact(chance.choice((await self.refresh()).layout.numbers))
            case "trim":
                await self.trim()
            case "snapshot":
                await self.snapshot()
            case "garbage":
                await self.collect_garbage()
            case "rebuild":
                await self.rebuild()
            case "copy":
                copies.append(self.copy_redis())

    async def found(self, shards: int) -> None:
        """Founds the cluster and opens the accounts."""
        await self.reconcile()
        new = NewCollection("bank", None, {}, {}, {**FIXED, "shards": shards})
        self.collection, _ = await self.catalog.collections.create(await self.database(), new, get_or_create=False)
        await self.write(dict.fromkeys(ACCOUNTS, BALANCE))
        await self.snapshot()

    async def database(self) -> Database:
        found = await self.catalog.databases.get("default_tenant", "default_database")
        assert found is not None
        return found

    async def refresh(self) -> Collection:
        found = await self.catalog.collections.get_by_id(await self.database(), self.collection.id)
        assert found is not None
        self.collection = found
        return found

    # ---- the clients

    async def write(self, changed: Balances) -> None:
        """One batch, acknowledged."""
        self.history[await append_balances(self.log, await self.refresh(), changed)] = self.balances | changed

    @property
    def balances(self) -> Balances:
        """What the bank should hold now."""
        return self.history[max(self.history)] if self.history else {}

    async def transfer(self, chance: random.Random) -> None:
        giver, taker = chance.sample(ACCOUNTS, 2)
        amount, before = chance.randint(1, 30), self.balances
        await self.write({giver: before[giver] - amount, taker: before[taker] + amount})

    async def read(self) -> Balances:
        """What the shards hold, each by its manifest and its log."""
        found: Balances = {}
        for shard in (await self.refresh()).layout.numbers:
            held = await self._read_shard(shard)
            assert not held.keys() & found.keys()
            found |= held
        return found

    async def _read_shard(self, shard: int) -> Balances:
        [state] = await self.log.states([(self.collection.id, shard)])
        assert state is not None
        store = ManifestStore(self.objects)
        manifest = await store.load(self.collection.id, shard, state.pointer) if state.pointer else None
        async with open_sources(
            self._cache(), manifest.segments if manifest else [], Indexing.of(state.fixed)
        ) as open_:
            base = SegmentSet([source.segment for source in open_], [source.dead for source in open_])
            applied = await apply_log(
                self.log, self.collection.id, state, base, state.dimension, 1 << 40, lambda: None, beyond_cut=True
            )
            alive = [
                source.without(applied.deleted[number]) if number in applied.deleted else source
                for number, source in enumerate(open_)
            ]
            tables = [*(source.live_records() for source in alive), applied.tail]
            return {
                record_id: json.loads(metadata)["balance"]
                for table in tables
                for record_id, metadata in zip(table["id"].to_pylist(), table["metadata"].to_pylist(), strict=True)
            }

    # ---- the compactors

    def _cache(self) -> SegmentCache:
        folder = self.folder / f"cache-{next(self._numbers)}"
        folder.mkdir()
        return SegmentCache(self.objects, folder, 1 << 30)

    async def compact(self, shard: int) -> Ending:
        building = self.folder / f"building-{next(self._numbers)}"
        building.mkdir()
        compactor = Compactor(
            self.log, self.objects, self._cache(), building, Checkpoints(self.clock), self.clock,
            ResourceLimits(threads=1, fold_bytes=1 << 30), "compactor", Damages(self.redis, self.keys),
            ErasureMarks(self.redis, self.keys),
        )  # fmt: skip
        return await compactor.compact(self.collection.id, shard)

    async def rebuild(self) -> None:
        """A step of getting more shards, and the sweep that finds a wish which the log lost."""
        await self.catalog.collections.want_shards(await self.refresh())
        rebuilds = Rebuilds(self.redis, self.keys)
        rebuilder = Rebuilder(
            self.log, rebuilds, self.jobs, self.objects, self._cache(), Checkpoints(self.clock), self.clock, "rebuilder"
        )
        await rebuilder.step(self.collection.id)
        while job := await self.jobs.claim("bank", 60):
            if job.shard >= 0:
                await self.compact(job.shard)
            await self.jobs.finish(job, "bank")

    async def ask_for_shards(self, shards: int) -> None:
        """As a client does, by the collection's metadata."""
        await self.catalog.collections.update(
            await self.database(), await self.refresh(), metadata={SHARDS_KEY: shards}
        )
        await self.snapshot()

    # ---- the log service

    async def reconcile(self) -> None:
        await Reconciler(self.catalog, self.images, self.log, self.objects, self.snapshots, self.clock).run()

    async def round(self) -> list[int]:
        """Takes the round further; the shards that are to be compacted now."""
        collection = await self.refresh()
        self.rounds.watch(collection.id, collection.layout)
        if collection.layout.count == 1:
            return list(collection.layout.numbers)
        return [shard for _, shard, _ in await self.rounds.step({collection.id: 1.0})]

    async def trim(self) -> None:
        collection = await self.refresh()
        sealer = Sealer(self.log, self.objects, Histories(self.redis, self.keys, 0.0))
        reporter = DamageReporter(Damages(self.redis, self.keys), "trimmer", self.clock)
        trimmer = Trimmer(self.log, self.objects, self.clock, collection.epoch, sealer, reporter)
        for shard, pointer in zip(collection.layout.numbers, collection.pointers, strict=True):
            if pointer is not None:
                trimmer.add((collection.id, shard), pointer)
        await trimmer.trim_waiting()

    async def snapshot(self) -> None:
        cluster = await self.catalog.mark.read()
        assert cluster is not None
        number = await self.snapshots.next_number()
        assert await self.snapshots.write(await self.images.take(cluster), number)

    async def collect_garbage(self) -> None:
        """A round of it, after a snapshot."""
        collector = Collector(self.redis, self.keys, self.catalog)
        cluster = await self.catalog.mark.read()
        assert cluster is not None
        snapshotter = Snapshotter(self.images, self.snapshots, cluster, self.clock, rest_ratio=0)
        await snapshotter.step(await self.catalog.changes.number())
        collections = [await self.refresh()]
        view = catalog_view(collections, await collector.graves(), snapshotter.layout_changes(collections), {})
        periods = Periods(self.garbage_kept_s, self.garbage_kept_s)
        await GarbageCollector(self.objects, self.clock, periods).collect(view, self.catalog.mark.require)

    # ---- losses

    async def lose_redis(self) -> None:
        await asyncio.to_thread(self.server.lose_everything)
        await self.restore()

    def copy_redis(self) -> Path:
        """As a backup does: of the running server."""
        copy = self.folder / f"copy-{next(self._numbers)}"
        return Path(shutil.copytree(self.server.directory / "appendonlydir", copy))

    async def go_back(self, copy: Path, *, root_known: bool = True) -> None:
        """Redis comes back as it was when the copy was made."""
        await asyncio.to_thread(self.server.kill)
        shutil.rmtree(self.server.directory)
        shutil.copytree(copy, self.server.directory / "appendonlydir")
        await asyncio.to_thread(self.server.start)
        await self.restore(root_known=root_known)

    async def restore(self, *, root_known: bool = True) -> None:
        """A log service finds Redis as it is. What the bank holds then must be a state that it had, and no older one
        than the newest root, unless that is not all there.
        """
        root = await RootStore(self.objects).newest(self.collection.id) if root_known else None
        await self.reconcile()
        self.become_leader()
        found = await self.read()
        assert sum(found.values()) == BALANCE * len(ACCOUNTS) or not found, found
        heads = [head for head, balances in self.history.items() if balances == found] or [1] * (not found)
        assert heads, f"{found} is no state that the bank ever had"
        assert max(heads) >= max((head for head in self.history if root and head <= root.position), default=1)
        restored = max(heads)
        self.history = {head: balances for head, balances in self.history.items() if head <= restored}
        if not found:
            await self.write(dict.fromkeys(ACCOUNTS, BALANCE))


async def append_balances(log: Log, collection: Collection, changed: Balances) -> int:
    """Appends these balances as one batch; returns the position at which it ends."""
    metadatas = [json.dumps({"balance": balance}) for balance in changed.values()]
    batch = build_batch(Op.UPSERT, list(changed), np.zeros((len(changed), 2), np.float32), metadatas=metadatas)
    request = AppendRequest(
        collection_id=collection.id,
        request_id=uuid.uuid4().hex,
        batches=split_batch(batch, collection.layout),
        dimension=2,
        generation=None,
    )
    return (await log.append(request)).head
