"""Makes Redis and the bucket agree when a log service begins to lead, or when Redis has restarted. All other processes
are kept out of a server until it is through (`shared.redis.fence`).

Redis has no mark of a cluster (it is new, or has lost everything):

```text
no snapshot in the bucket    a new cluster: an empty snapshot, the mark, the default tenant and database
a snapshot                   1. the newest manifest of every shard
                             2. every collection's head goes beyond every position that may have been handed out
                             3. a snapshot with these heads, so that a second loss begins from them
                             4. states, rows, and last the mark; until then every append and read is refused
```

Redis has the mark, and is another run of itself:
    1. Has it gone back? Its catalog or a head is older than the snapshot, or the bucket has a later number of a commit
       (`shared.manifest.commits`). Then every shard is compared with the bucket, missing rows and pointers are
       restored, and what may be missing is reported.
    2. Every head goes beyond every position that may have been handed out, and a snapshot has these heads before
       anybody is let in.
    Step 2 asks for no evidence. A Redis can go back behind writes that nothing else knows of, and be handed their
    positions again, which a manifest covers that a compactor is still making, or a reader believes to know.
    A pointer may be one manifest behind: its compactor died, or Redis lost that commit alone; then the log has what the
    manifest covers, and the next compaction completes it.

Why the heads are safe: an append is refused when more than `limits.BACKLOG_OPS_CEILING` operations are not trimmed, and
only what a manifest covers is trimmed. Positions are dense but for the gaps that restorations leave, and a snapshot has
the head as it was after the last of them. So the head was at most max(newest manifest's covers, snapshot's head) + the
ceiling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final, TypeVar

import msgspec

from logservice.garbage_plan import collection_of
from logservice.snapshots import Snapshots
from shared import limits
from shared.catalog import Catalog, Cluster, Collection
from shared.catalog.image import CatalogImage, CollectionImage, Images, merged
from shared.errors import Corrupt, Gone, Unavailable
from shared.log.log import Log
from shared.log.state import Pointer
from shared.manifest.commits import CommitNumbers
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.records.model import FIRST_POSITION

log = get_logger(__name__)

CONCURRENCY: Final = 16
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MissingRange:
    """What a collection may have lost: the operations from `covered[shard]` on of each shard, up to `head` (exclusive),
    the first position that will be handed out now. Positions below `seen` were surely handed out.
    """

    collection: str
    name: str
    covered: list[int]
    seen: int
    head: int


@dataclass(frozen=True, slots=True)
class _Found:
    """A collection of the snapshot with what the bucket has of it."""

    image: CollectionImage
    manifests: list[tuple[Manifest, Pointer] | None]

    @property
    def pointers(self) -> list[Pointer | None]:
        return [found[1] if found else None for found in self.manifests]

    @property
    def covered(self) -> list[int]:
        return [pointer.covers if pointer else FIRST_POSITION for pointer in self.pointers]

    def restored(self, known_head: int) -> CollectionImage:
        """The image with a head that nobody has passed, and the dimension if a manifest knows it."""
        head = max(*self.covered, self.image.head, known_head) + limits.BACKLOG_OPS_CEILING
        dimensions = [found[0].dimension for found in self.manifests if found and found[0].dimension]
        dimension = self.image.dimension or (dimensions[0] if dimensions else None)
        return msgspec.structs.replace(self.image, head=head, dimension=dimension)

    def missing(self, head: int) -> MissingRange:
        return MissingRange(self.image.id, self.image.name, self.covered, self.image.head, head)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A shard whose newest manifest in the bucket is ahead of its pointer."""

    collection: str
    shard: int
    pointer: Pointer | None
    newest: Pointer


class Reconciler:
    """See the module's text."""

    def __init__(
        self, catalog: Catalog, images: Images, log_: Log, objects: ObjectStore, snapshots: Snapshots, clock: Clock
    ) -> None:
        self._catalog = catalog
        self._images = images
        self._log = log_
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._commits = CommitNumbers(objects)
        self._snapshots = snapshots
        self._clock = clock

    async def run(self) -> Cluster:
        """The cluster, open. Raises Unavailable, and Corrupt when bucket and Redis do not belong together or a manifest
        that must be restored cannot be read.
        """
        run, verified = await self._catalog.mark.server_run()
        cluster = await self._catalog.mark.read()
        number = await self._snapshots.next_number()  # first: what is written under it follows from all before
        image = await self._snapshots.newest()
        if cluster is None:
            cluster = await (self._restore(image, number, run) if image else self._found(number, run))
        elif image is not None and image.cluster != cluster.id:
            raise Corrupt(f"Redis holds cluster {cluster.id}, the bucket holds cluster {image.cluster}")
        elif not verified:
            await self._verify(cluster, image, number)
            await self._catalog.mark.mark_verified(run)
        return cluster

    async def reconciled(self) -> bool:
        """Whether the server still is the run of itself that was compared."""
        return await self._catalog.mark.read() is not None and (await self._catalog.mark.server_run())[1]

    # A new cluster, or one whose Redis is lost

    async def _found(self, number: int, run: str) -> Cluster:
        strangers = await self._collections_in_bucket()
        if strangers:
            raise Corrupt(f"the bucket holds {len(strangers)} collections and no snapshot of the catalog they are in")
        cluster = Cluster.new()
        await self._write(Images.empty(cluster, self._clock.now()), number)
        await self._catalog.mark.open(cluster, run)
        await self._catalog.bootstrap()
        log.info("cluster_founded", cluster=cluster.id)
        return cluster

    async def _restore(self, image: CatalogImage, number: int, run: str) -> Cluster:
        cluster = Cluster(image.cluster, image.epoch + 1)
        log.warning("redis_is_empty", cluster=cluster.id, collections=len(image.collections), snapshot_s=image.taken_s)
        found = await self._find(image.collections)
        restored = [one.restored(0) for one in found]
        await self._write(
            msgspec.structs.replace(image, epoch=cluster.epoch, collections=restored, taken_s=self._clock.now()), number
        )
        heads = await self._restore_states(found, restored)
        await self._images.restore_rows(image)
        await self._report(cluster, [one.missing(head) for one, head in zip(found, heads, strict=True)], image)
        await self._log.raise_commits(await self._commits.newest())
        return await self._catalog.mark.open(cluster, run)

    async def _write(self, image: CatalogImage, number: int) -> None:
        if not await self._snapshots.write(image, number):
            raise Unavailable("Another log service is opening the cluster")

    async def _find(self, collections: Iterable[CollectionImage]) -> list[_Found]:
        async def one(image: CollectionImage) -> _Found:
            return _Found(image, [await self._manifests.newest(image.id, shard) for shard in image.layout.numbers])

        return await _each(collections, one)

    async def _restore_states(self, found: list[_Found], restored: list[CollectionImage]) -> list[int]:
        async def one(pair: tuple[_Found, CollectionImage]) -> int:
            old, image = pair
            return await self._images.restore_state(image, image.head, old.pointers)

        return await _each(zip(found, restored, strict=True), one)

    # A Redis that is there, and may have gone back in time

    async def _verify(self, cluster: Cluster, image: CatalogImage | None, number: int) -> None:
        now = await self._images.take(cluster)
        heads = {one.id: one.head for one in image.collections} if image else {}
        behind = sum(one.head < heads.get(one.id, 0) for one in now.collections)
        commits = await self._commits.newest()
        lost_commits = commits - await self._log.commits()
        # Rows are taken from a snapshot that is newer than Redis alone: an older one has rows that were deleted since.
        newer = image if image is not None and image.changes > now.changes else None
        switched = _switched_since(now, image)
        if behind or newer or switched or lost_commits > 0:
            log.warning("redis_went_back", heads=behind, rows=newer is not None, commits=max(lost_commits, 0))
            await self._bring_forward(cluster, image, newer, heads, switched)
            await self._log.raise_commits(commits)  # last: it was the evidence
        else:
            raised = {one.id: one.head + limits.BACKLOG_OPS_CEILING for one in now.collections}
            await self._images.raise_heads(raised)
            await self._write(merged(now, None, raised), number)

    async def _examine(self, which: tuple[str, int]) -> _Ahead | None:
        """One shard that cannot be read keeps its trouble to itself: its compactor and its readers report it too."""
        try:
            return await self._compare(*which)
        except Gone:
            return None
        except Corrupt as error:
            log.error("shard_not_compared", collection=which[0], shard=which[1], message=error.message)  # noqa: TRY400 (no stack: data is at fault)
            return None

    async def _compare(self, collection_id: str, shard: int) -> _Ahead | None:
        newest = await self._manifests.newest(collection_id, shard)
        (state,) = await self._log.states([(collection_id, shard)])
        if state is None or newest is None or newest[1].version <= _version(state.pointer):
            return None
        return _Ahead(collection_id, shard, state.pointer, newest[1])

    async def _bring_forward(
        self,
        cluster: Cluster,
        image: CatalogImage | None,
        newer: CatalogImage | None,
        heads: Mapping[str, int],
        switched: Sequence[CollectionImage],
    ) -> None:
        """What shows that Redis went back shows it for every collection: of those that nothing is known of, the log
        alone may have been lost. The snapshot with the new heads comes first, so that a loss right after begins from
        them.
        """
        await self._force_layouts(switched)
        collections = [collection async for collection in self._catalog.collections.all()]
        shards = [(collection.id, shard) for collection in collections for shard in collection.layout.numbers]
        ahead = [found for found in await _each(shards, self._examine) if found]
        living = [_rolled_back(one, ahead, heads.get(one.id, 0)) for one in collections]
        present = {one.collection for one in living}
        found = await self._find(one for one in newer.collections if one.id not in present) if newer else []
        lost = [one.restored(0) for one in found]
        number = await self._snapshots.next_number()
        now = await self._images.take(cluster)
        raised = {one.collection: one.head for one in living}
        await self._write(merged(now, newer, raised | {one.id: one.head for one in lost}), number)
        restored = await self._restore_states(found, lost)
        await self._images.raise_heads(raised)
        if newer is not None:
            await self._images.restore_rows(newer)
        for one_ahead in ahead:
            with suppress(Gone):
                await self._log.commit(one_ahead.collection, one_ahead.shard, one_ahead.pointer, one_ahead.newest)
        living += [one.missing(head) for one, head in zip(found, restored, strict=True)]
        await self._report(cluster, living, image)

    async def _force_layouts(self, switched: Sequence[CollectionImage]) -> None:
        """Gives collections the later layout that the snapshot knows, and forgets every rebuild under way: the bucket
        may be ahead of what Redis says of it. It is begun anew, with shards of its own.
        """
        later = {found.image.id: found for found in await self._find(switched)}
        async for collection in self._catalog.collections.all():
            found = later.get(collection.id)
            with suppress(Gone):
                if collection.rebuild and not (found and found.image.layout == collection.rebuild.layout):
                    await self._images.abandon_rebuild(collection)
                if found:
                    await self._images.force_layout(collection, found.image.layout, found.pointers)

    async def _report(self, cluster: Cluster, missing: list[MissingRange], image: CatalogImage | None) -> None:
        known = {one.id for one in image.collections} if image else set()
        known |= {one.collection for one in missing}
        unlisted = sorted(await self._collections_in_bucket() - known)
        for one in missing:
            log.warning("log_range_missing", **asdict(one))
        if unlisted:
            log.error("collections_without_a_row", collections=unlisted)
        await self._images.write_report(
            {
                "cluster": cluster.id,
                "epoch": cluster.epoch,
                "at_s": self._clock.now(),
                "snapshot_s": image.taken_s if image else None,
                "missing": [asdict(one) for one in missing],
                "unlisted": unlisted,
            }
        )

    async def _collections_in_bucket(self) -> set[str]:
        keys = [info.key async for info in self._objects.list("")]
        return {collection for key in keys if (collection := collection_of(key)) is not None}


def _switched_since(now: CatalogImage, image: CatalogImage | None) -> list[CollectionImage]:
    """Collections of the snapshot that have a later layout there than in Redis."""
    first = {one.id: one.layout.first for one in now.collections}
    known = image.collections if image else []
    return [one for one in known if one.layout.first > first.get(one.id, one.layout.first)]


def _version(pointer: Pointer | None) -> int:
    return pointer.version if pointer else 0


def _rolled_back(collection: Collection, ahead: Iterable[_Ahead], known_head: int) -> MissingRange:
    newest = {one.shard: one.newest for one in ahead if one.collection == collection.id}
    shards = zip(collection.layout.numbers, collection.pointers, strict=True)
    pointers = [newest.get(shard, pointer) for shard, pointer in shards]
    covered = [pointer.covers if pointer else FIRST_POSITION for pointer in pointers]
    seen = max(*covered, collection.head, known_head)
    return MissingRange(collection.id, collection.name, covered, seen, seen + limits.BACKLOG_OPS_CEILING)


async def _each(items: Iterable[S], work: Callable[[S], Awaitable[T]]) -> list[T]:
    """`work` on every item, some at once; results in order."""
    limit = asyncio.Semaphore(CONCURRENCY)

    async def one(item: S) -> T:
        async with limit:
            return await work(item)

    return list(await asyncio.gather(*(one(item) for item in items)))
