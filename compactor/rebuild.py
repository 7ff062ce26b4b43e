"""Rebuilds: resharding a collection while it is read and written, step by step (docs/design/2026-11-21-rebuild.md).

```text
begun            the next layout has shard numbers that nothing in the bucket has
initialized      its shards have initial manifests: the present segments through other tombstones
copied           their streams have what the log had after those manifests, and are kept up to date
                 (ordinary compactions rewrite the segments meanwhile, one job per shard)
appends stopped  appends wait (this step is called `fenced` in settings)
switched         the rest is copied, and the next layout is the present one
```

The collection's state in Redis says which step comes next. Each step is one script that compares the state with what it
expects before it changes it. When it finds another state, the run ends, and the next run goes on from what is there. So
two rebuilders may work at once, and what a dead one leaves is either garbage or continued.
"""

from __future__ import annotations

import uuid
from typing import Final

from compactor.apply_log import check_chain, whole_appends
from compactor.cancellation import in_thread
from compactor.checkpoints import Checkpoints, RebuildStep
from compactor.initial_manifests import InitialManifest, has_foreign_segments, initial_manifests
from compactor.resplit import resplit
from compactor.sources import open_sources
from shared.cluster.placement import Layout
from shared.errors import Gone
from shared.log.jobs import REBUILD, Jobs
from shared.log.log import Log
from shared.log.rebuild import Rebuilds
from shared.log.state import Entry, Pointer, Routing, ShardRead, ShardState, after_position
from shared.manifest.commits import CommitNumbers
from shared.manifest.model import Manifest, SegmentRef
from shared.manifest.roots import RootStore, make_root
from shared.manifest.store import ManifestStore, verify_present
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.records.indexing import Indexing
from shared.records.model import FIRST_POSITION
from shared.segment.cache import SegmentCache

log = get_logger(__name__)

COPY_BYTES: Final = 16 * 1024 * 1024
"""Bytes of the log that one copy takes, over all shards, unless an append is larger."""

COPIES_MAX: Final = 64
"""Copies in one step at most. When the log grows faster than it is copied, the step ends before it has caught up."""

SWITCH_OPS_MAX: Final = 4096
"""Operations in the last copy, at most, for appends to be stopped: the rest is copied in milliseconds then."""

BUILD_PRIORITY: Final = 100.0
"""Priority of compacting a shard that has no segments of its own yet: before all other compactions, which writes that
never pause would put before it for ever."""


class Rebuilder:
    """Takes the steps of rebuilds. `written_by` names the process in manifests."""

    def __init__(
        self,
        log_: Log,
        rebuilds: Rebuilds,
        jobs: Jobs,
        objects: ObjectStore,
        cache: SegmentCache,
        checkpoints: Checkpoints,
        clock: Clock,
        written_by: str,
    ) -> None:
        self._log = log_
        self._rebuilds = rebuilds
        self._jobs = jobs
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._roots = RootStore(objects)
        self._commits = CommitNumbers(objects)
        self._cache = cache
        self._checkpoints = checkpoints
        self._clock = clock
        self._written_by = written_by

    async def step(self, collection: str) -> None:
        """Takes a collection's rebuild as far as it goes now. Raises Gone, Corrupt, Unavailable."""
        begun = await self._state(collection, REBUILD)
        routing, epoch = begun.routing, begun.epoch
        following = await self._next(collection, begun)
        if following is None:
            return
        if routing.copied is None:
            await self._initialize(collection, epoch, routing.layout, following)
        if not await self._copy(collection, epoch):
            return
        unfinished = [shard for shard in following.numbers if await self._has_foreign_segments(collection, shard)]
        await self._rebuilds.note_built(collection, epoch, routing.layout, following, following.count - len(unfinished))
        for shard in unfinished:
            await self._jobs.put(collection, shard, BUILD_PRIORITY)
        if not unfinished:
            await self._switch(collection, epoch)

    async def _state(self, collection: str, shard: int) -> ShardState:
        [state] = await self._log.states([(collection, shard)])
        if state is None or state.deleted:
            raise Gone(f"collection {collection} was deleted")
        return state

    async def _next(self, collection: str, begun: ShardState) -> Layout | None:
        routing = begun.routing
        if routing.next is not None or not routing.unfinished:
            return routing.next
        folders = {info.key.split("/")[1] async for info in self._objects.list(f"{collection}/")}
        used = [int(folder) for folder in folders if folder.isdigit()]
        first = max([*used, routing.layout.numbers[-1]]) + 1
        return await self._rebuilds.begin(collection, begun.epoch, routing.layout, Layout(first, routing.wanted))

    # ---- the initial manifests

    async def _initialize(self, collection: str, epoch: int, layout: Layout, following: Layout) -> None:
        states = [await self._state(collection, shard) for shard in layout.numbers]
        refs: list[SegmentRef] = []
        for state in states:
            if state.pointer is not None:
                refs += (await self._manifests.load(collection, state.number, state.pointer)).segments
        async with open_sources(self._cache, refs, Indexing.of(states[0].fixed)) as sources:
            initial = await in_thread(initial_manifests, sources, following.count)
        starts = {state.number: state.pointer.covers if state.pointer else FIRST_POSITION for state in states}
        if layout.count == 1:
            await self._write_root(collection, states[0])
        await self._commits.leave(await self._log.draw_commit())
        covers, dimension = min(starts.values()), states[0].dimension or 0
        pointers = {
            shard: await self._create(collection, shard, manifest, covers, dimension, epoch)
            for shard, manifest in zip(following.numbers, initial, strict=True)
        }
        # Again, now that the garbage collector can see the manifests: see logservice/garbage/plan.py.
        for ref in refs:
            await verify_present(self._objects, ref.info)
        if await self._rebuilds.initialize(collection, epoch, layout, following, starts, pointers):
            await self._jobs.mark_dirty((collection, shard) for shard in following.numbers)
            log.info("initialized", collection=collection, shards=layout.count, next=following.count, covers=covers)
            await self._checkpoints.reached(RebuildStep.INITIALIZED, collection, REBUILD)

    async def _write_root(self, collection: str, state: ShardState) -> None:
        """Writes the root of a collection that had one shard, and so none: until its new shards have theirs, it is
        restored to the shard that it had.
        """
        if await self._roots.newest(collection) is None:
            covers = state.pointer.covers if state.pointer else FIRST_POSITION
            written_by = f"{self._written_by} {uuid.uuid4().hex}"
            layout, pointers = state.routing.layout, [state.pointer]
            await self._roots.create(
                make_root(collection, state.epoch, covers, layout, pointers, written_by, self._clock.now())
            )

    async def _create(
        self, collection: str, shard: int, initial: InitialManifest, covers: int, dimension: int, epoch: int
    ) -> Pointer:
        """Creates a new shard's initial manifest, under the first version that is free: another rebuilder may have
        created some and died, or be about to create them.
        """
        version = 0
        while True:
            version += 1
            manifest = Manifest(
                collection=collection, shard=shard, version=version, parent=None, covers=covers, dimension=dimension,
                segments=initial.segments, rows=initial.rows, digest=initial.digest_hex,
                written_by=f"{self._written_by} {uuid.uuid4().hex}", created_s=self._clock.now(),
                epoch=epoch,
            )  # fmt: skip
            pointer = await self._manifests.create(manifest)
            if pointer is not None:
                return pointer

    async def _has_foreign_segments(self, collection: str, shard: int) -> bool:
        state = await self._state(collection, shard)
        return state.pointer is None or has_foreign_segments(
            await self._manifests.load(collection, shard, state.pointer)
        )

    # ---- the log

    async def _copy(self, collection: str, epoch: int) -> bool:
        """Copies the log to the new streams until little is left; whether that was reached."""
        for _ in range(COPIES_MAX):
            routing = (await self._state(collection, REBUILD)).routing
            if routing.next is None or routing.copied is None:
                return False
            entries, reach, complete = await self._read(collection, routing)
            batches = await in_thread(resplit, entries, routing.next)
            if reach > routing.copied and not await self._rebuilds.copy(collection, epoch, routing, reach, batches):
                return False
            if complete and sum(entry.count for entry in entries) <= SWITCH_OPS_MAX:
                await self._checkpoints.reached(RebuildStep.COPIED, collection, REBUILD)
                return True
        return False

    async def _read(self, collection: str, routing: Routing) -> tuple[list[Entry], int, bool]:
        """Whole appends of all present shards that are still to be copied, up to where (exclusive) they are all there,
        and whether that is the log's end as it was.

        The shards are read one after the other. An append that arrives in between is in some of the answers only: it is
        left for the next copy.
        """
        reads = [await self._read_shard(collection, shard, routing) for shard in routing.layout.numbers]
        reach = min(end for _, end, _ in reads)
        entries = [entry for found, _, _ in reads for entry in found if entry.end <= reach]
        return entries, reach, all(complete for _, _, complete in reads)

    async def _read_shard(self, collection: str, shard: int, routing: Routing) -> tuple[list[Entry], int, bool]:
        start = (await self._state(collection, shard)).kept_from or FIRST_POSITION
        bytes_max = COPY_BYTES // routing.layout.count
        while True:
            read: ShardRead = await self._log.read(collection, shard, after_position(start), bytes_max)
            check_chain(read, after_position(start), start)
            entries, _ = whole_appends(read.entries)
            if read.complete:
                return entries, read.state.head, True
            if entries:
                return entries, entries[-1].end, False
            bytes_max *= 4  # an append is all there or not at all

    async def _switch(self, collection: str, epoch: int) -> None:
        routing = (await self._state(collection, REBUILD)).routing
        if routing.next is None:
            return
        began_s = self._clock.monotonic()
        head = await self._rebuilds.stop_appends(collection, epoch, routing.layout, routing.next)
        if head is None:
            return
        await self._checkpoints.reached(RebuildStep.APPENDS_STOPPED, collection, REBUILD)
        entries, reach, complete = await self._read(collection, routing)
        if not complete or reach != head:
            return  # the stop of appends has expired: next time
        batches = await in_thread(resplit, entries, routing.next)
        if await self._rebuilds.switch(collection, epoch, routing, head, batches):
            stopped_ms = round(1000 * (self._clock.monotonic() - began_s))
            log.info("switched", collection=collection, shards=routing.next.count, stopped_ms=stopped_ms)
            await self._checkpoints.reached(RebuildStep.SWITCHED, collection, REBUILD)
            await self._jobs.mark_dirty((collection, shard) for shard in routing.next.numbers)
