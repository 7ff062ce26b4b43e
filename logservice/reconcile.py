"""Makes Redis and the bucket agree when a log service begins to lead, or when Redis has restarted. All other processes
are kept out of a server until it is through (`shared.redis.fence`).

Redis has no mark of a cluster (it is new, or has lost everything):

```text
no snapshot in the bucket    a new cluster: an empty snapshot, the mark, the default tenant and database
a snapshot                   0. what the journal says beyond it (`shared.catalog.replay`)
                             1. the newest manifest of every shard
                             2. every collection's head goes beyond every position that may have been handed out
                             3. a snapshot with these heads, so that a second loss begins from them
                             4. states, rows, and last the mark; until then every append and read is refused
                         Snapshot, states and mark are of a new epoch: what was begun before changes nothing any more
```

Redis has the mark, and is another run of itself:
    1. Has it gone back? Its catalog or a head is older than the snapshot with its journal, or the bucket has a later
       number of a commit (`shared.manifest.commits`). Then rows that the bucket knows later are corrected
       (`shared.catalog.bring_forward`), every shard is compared with the bucket, missing rows and pointers are
       restored, what may be missing is reported, and a new epoch begins.
    2. Every head goes beyond every position that may have been handed out, and a snapshot has these heads before
       anybody is let in, unless the bucket takes no writes (`logservice.owed_snapshot`).
    Step 2 asks for no evidence. A Redis can go back behind writes that nothing else knows of, and be handed their
    positions again, which a manifest covers that a compactor is still making, or a reader believes to know.
    A pointer may be one manifest behind: its compactor died, or Redis lost that commit alone; then the log has what the
    manifest covers, and the next compaction completes it.

What is restored, and why the heads are safe: `logservice.restoration`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Final

import msgspec

from logservice.garbage_plan import ShardKey, collection_of
from logservice.owed_snapshot import OwedSnapshot
from logservice.restoration import (
    MissingRange,
    RollbackSigns,
    ShardAhead,
    StoredCollection,
    heads_of,
    rolled_back,
    signs_of_rollback,
)
from logservice.snapshots import NewestSnapshot, Snapshots
from logservice.stored_catalog import StoredCatalog
from shared.catalog import Catalog, Cluster
from shared.catalog.damage import Damage, DamageKind, kind_of
from shared.catalog.image import CatalogImage, CollectionImage, Images, merged
from shared.errors import Corrupt, Gone, Unavailable
from shared.log.log import Log
from shared.manifest.commits import CommitNumbers
from shared.manifest.newest import newest_manifest
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.process.telemetry import get_logger

log = get_logger(__name__)

PASSED_OVER: Final = "passed over by a restoration, which took what came before it"

AT_ONCE: Final = 16
"""Collections or shards that are compared or restored at a time."""


class Reconciler:
    """Compares Redis with the bucket, restores what Redis lost, and then opens the cluster to all other processes."""

    def __init__(
        self, catalog: Catalog, images: Images, log_: Log, objects: ObjectStore, snapshots: Snapshots, clock: Clock
    ) -> None:
        self._journaled = StoredCatalog(objects, snapshots, clock)
        self._owed = OwedSnapshot(catalog.mark, images, objects, snapshots)
        self._catalog = catalog
        self._images = images
        self._log = log_
        self._objects = objects
        self._commits = CommitNumbers(objects)
        self._snapshots = snapshots
        self._clock = clock

    async def run(self) -> Cluster:
        """The cluster, open. Raises Unavailable, and Corrupt when bucket and Redis do not belong together or a manifest
        that must be restored cannot be read.
        """
        run = await self._catalog.mark.server_run()
        cluster = await self._catalog.mark.read()
        number = await self._snapshots.next_number()  # first: what is written under it follows from all before
        newest = await self._snapshots.newest_readable()
        if cluster is None:
            cluster = await (self._restore(newest, number, run.id) if newest else self._found(number, run.id))
        elif newest is not None and newest.image.cluster != cluster.id:
            raise Corrupt(f"Redis holds cluster {cluster.id}, the bucket holds cluster {newest.image.cluster}")
        elif not run.verified:
            cluster = await self._verify(cluster, newest, number, run.id)
        return cluster

    async def reconciled(self) -> bool:
        """Whether the server still is the run of itself that was compared."""
        if await self._catalog.mark.read() is None:
            return False
        return (await self._catalog.mark.server_run()).verified

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

    async def _restore(self, newest: NewestSnapshot, number: int, run: str) -> Cluster:
        image, damaged = await self._journaled.with_journal(newest)
        image = self._owed.with_known_heads(image)
        cluster = Cluster(image.cluster, image.epoch + 1)
        log.warning("redis_is_empty", cluster=cluster.id, collections=len(image.collections), snapshot_s=image.taken_s)
        stored = await self._stored(image.collections)
        restored = [each.restored() for each in stored]
        await self._write(
            msgspec.structs.replace(image, epoch=cluster.epoch, collections=restored, taken_s=self._clock.now()), number
        )
        await self._require_unopened(cluster)
        heads = await self._restore_states(stored, cluster.epoch)
        await self._require_unopened(cluster)
        await self._images.restore_rows(image)
        await self._catalog.unproven.add(key for each in stored for key in each.unproven)
        missing = [each.missing(head) for each, head in zip(stored, heads, strict=True)]
        await self._report(cluster, missing, image, damaged)
        await self._log.raise_commits(await self._commits.newest())
        return await self._catalog.mark.open(cluster, run)

    async def _require_unopened(self, cluster: Cluster) -> None:
        """Raises Unavailable when the cluster was opened in this epoch or a later one while this process slept: what it
        would restore may have been deleted since.
        """
        opened = await self._catalog.mark.read()
        if opened is not None and opened.epoch >= cluster.epoch:
            raise Unavailable("Another log service has restored the cluster")

    async def _write(self, image: CatalogImage, number: int) -> None:
        if not await self._snapshots.write(image, number):
            raise Unavailable("Another log service is opening the cluster")

    async def _stored(self, collections: Iterable[CollectionImage]) -> list[StoredCollection]:
        """The content of the bucket for these collections."""

        async def find(image: CollectionImage) -> StoredCollection:
            manifests = [await newest_manifest(self._objects, image.id, shard) for shard in image.layout.numbers]
            return StoredCollection(image, manifests)

        return await map_concurrently(find, collections, at_once=AT_ONCE)

    async def _restore_states(self, stored: Sequence[StoredCollection], epoch: int) -> list[int]:
        """Puts the states of these collections back, in this epoch; returns their heads."""

        async def restore(each: StoredCollection) -> int:
            image = each.restored()
            return await self._images.restore_state(image, image.head, epoch, each.pointers)

        return await map_concurrently(restore, stored, at_once=AT_ONCE)

    # A Redis that is there, and may have gone back in time

    async def _verify(self, cluster: Cluster, newest: NewestSnapshot | None, number: int, run: str) -> Cluster:
        """The cluster, open for this run of the server."""
        image, damaged = await self._journaled.with_journal(newest) if newest else (None, list[str]())
        image = self._owed.with_known_heads(image) if image else None
        now = await self._images.take(cluster)
        commits = await self._commits.newest()
        signs = signs_of_rollback(now, image, commits, await self._log.commits())
        if signs.went_back:
            log.warning(
                "redis_went_back",
                heads=signs.heads_behind,
                rows=signs.newer is not None,
                commits=signs.lost_commits,
                older_epoch=signs.older_epoch,
            )
            if signs.newer is not None:
                signs = replace(signs, newer=await self._images.bring_forward(now, signs.newer))
            brought = await self._bring_forward(cluster, image, signs, damaged)
            await self._log.raise_commits(commits)  # it was the evidence
            return await self._catalog.mark.open(brought, run)
        heads = await self._owed.raise_heads(now, run)
        await self._owed.write(merged(now, None, heads), number, run)
        await self._catalog.mark.mark_verified(run)
        return cluster

    async def _bring_forward(
        self, cluster: Cluster, image: CatalogImage | None, signs: RollbackSigns, damaged: Sequence[str]
    ) -> Cluster:
        """Evidence that Redis went back holds for every collection: of those that nothing is known of, the log
        alone may have been lost. The snapshot with the new heads and the new epoch comes first, so that a loss right
        after begins from them, and a crash right after shows. Returns the cluster in its new epoch, yet to be opened.
        """
        brought = Cluster(cluster.id, max(cluster.epoch, image.epoch if image else 0) + 1)
        await self._force_layouts(signs.switched)
        collections = [collection async for collection in self._catalog.collections.all()]
        shards = [(collection.id, shard) for collection in collections for shard in collection.layout.numbers]
        compared = await map_concurrently(self._compare, shards, at_once=AT_ONCE)
        ahead = [found for found in compared if found]
        snapshot_heads = {collection.id: collection.head for collection in image.collections} if image else {}
        living = [rolled_back(collection, ahead, snapshot_heads.get(collection.id, 0)) for collection in collections]
        present = {missing.collection for missing in living}
        rows = signs.newer.collections if signs.newer else []
        lost = await self._stored(collection for collection in rows if collection.id not in present)
        number = await self._snapshots.next_number()
        now = await self._images.take(cluster)
        raised = heads_of(living)
        restored_heads = {stored.image.id: stored.restored().head for stored in lost}
        merged_image = merged(now, signs.newer, raised | restored_heads)
        await self._write(msgspec.structs.replace(merged_image, epoch=brought.epoch), number)
        await self._require_unopened(brought)
        restored = await self._restore_states(lost, brought.epoch)
        await self._images.raise_heads(raised, brought.epoch)
        if signs.newer is not None:
            await self._images.restore_rows(signs.newer)
        for shard in ahead:
            if shard.newest is not None and shard.newest != shard.pointer:
                with suppress(Gone):
                    await self._log.commit(shard.collection, shard.shard, shard.pointer, shard.newest, brought.epoch)
        taken_up = [*(stored.unproven for stored in lost), *(shard.unproven for shard in ahead)]
        await self._catalog.unproven.add(itertools.chain.from_iterable(taken_up))
        missing = [*living, *(stored.missing(head) for stored, head in zip(lost, restored, strict=True))]
        await self._report(brought, missing, image, damaged)
        return brought

    async def _compare(self, shard: ShardKey) -> ShardAhead | None:
        """None unless the bucket is ahead of Redis, or may be: it has manifests that cannot be read."""
        stored = await newest_manifest(self._objects, *shard)
        (state,) = await self._log.states([shard])
        if state is None:
            return None
        ahead = ShardAhead(*shard, state.pointer, stored)
        return ahead if ahead.newest != state.pointer or stored.damaged else None

    async def _force_layouts(self, switched: Sequence[CollectionImage]) -> None:
        """Gives collections the later layout that the snapshot knows, and forgets every rebuild under way: the bucket
        may be ahead of what Redis says of it. It is begun anew, with shards of its own.
        """
        later = {stored.image.id: stored for stored in await self._stored(switched)}
        async for collection in self._catalog.collections.all():
            stored = later.get(collection.id)
            with suppress(Gone):
                if collection.rebuild and not (stored and stored.image.layout == collection.rebuild.layout):
                    await self._images.abandon_rebuild(collection)
                if stored:
                    await self._images.force_layout(collection, stored.image.layout, stored.pointers)

    async def _report(
        self, cluster: Cluster, missing: Sequence[MissingRange], image: CatalogImage | None, damaged: Sequence[str]
    ) -> None:
        known = {collection.id for collection in image.collections} if image else set()
        known |= {lost.collection for lost in missing}
        unlisted = sorted(await self._collections_in_bucket() - known)
        await self._name_damage("", dict.fromkeys(damaged, "it could not be read"))
        for lost in missing:
            log.warning("log_range_missing", **asdict(lost))
            await self._name_damage(lost.collection, lost.damaged)
        if unlisted:
            log.error("collections_without_a_row", collections=unlisted)
        await self._images.write_report(
            {
                "cluster": cluster.id,
                "epoch": cluster.epoch,
                "at_s": self._clock.now(),
                "snapshot_s": image.taken_s if image else None,
                "missing": [asdict(lost) for lost in missing],
                "unlisted": unlisted,
                "damaged_journal": [name for name in damaged if kind_of(name) is not DamageKind.SNAPSHOT],
                "damaged_snapshots": [name for name in damaged if kind_of(name) is DamageKind.SNAPSHOT],
            }
        )

    async def _name_damage(self, collection: str, damaged: Mapping[str, str]) -> None:
        for name, what in damaged.items():
            log.error("stored_data_damaged", collection=collection, object=name, what=what)
            found = Damage(name, kind_of(name), what, PASSED_OVER, "logservice", self._clock.now(), collection)
            await self._catalog.damages.report(found)

    async def _collections_in_bucket(self) -> set[str]:
        keys = [info.key async for info in self._objects.list("")]
        return {collection for key in keys if (collection := collection_of(key)) is not None}
