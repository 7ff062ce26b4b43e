"""Makes Redis and the bucket agree when a log service begins to lead, or when Redis has restarted. All other processes
are kept out of a server until it is through (`shared.redis.fence`).

Redis has no mark of a cluster (it is new, or has lost everything):

```text
no snapshot in the bucket    a new cluster: an empty snapshot, the mark, the default tenant and database
a snapshot                   0. connections from before are closed: the server may have lost its data and run on;
                                what the journal says beyond it (`shared.catalog.replay`)
                             1. each collection's newest root, or the newest manifest of its only shard
                             2. every collection's head goes beyond every position that may have been handed out
                             3. a snapshot with these heads, so that a second loss begins from them
                             4. a root for each collection, which gives up what is in the bucket and was not taken
                             5. states, rows, and last the mark; until then every append and read is refused
                         Snapshot, roots, states and mark are of a new epoch: what was begun before changes nothing any
                         more
```

Redis has the mark, and is another run of itself:
    0. Witnesses give back what they saw in the log and Redis does not have (`logservice.healing.put_back`). If there is
       any, a new epoch begins.
       What it lost alone is recovered (`logservice.restoring.lost_alone`): nobody else could before it is open.
    1. Has it gone back, or lost a state? Its catalog or a head is older than the snapshot with its journal, or the
       bucket has a later number of a commit (`shared.manifest.commits`). Then rows that the bucket knows later are
       corrected (`shared.catalog.bring_forward`), and each collection gets a state of one moment: its own, when its log
       is whole and reaches as far as the bucket, else the bucket's, in the place of its log. Missing rows are restored,
       what may be missing is reported, and a new epoch begins, with snapshot and roots as above. The roots of those
       that keep their log come after their states: were such a root there first, a log service that goes on after a
       crash in between would take the log for one of an earlier epoch, which was given up.
    2. Every head goes beyond every position that may have been handed out, and a snapshot has these heads before
       anybody is let in, unless the bucket takes no writes (`logservice.restoring.owed_snapshot`).
    Step 2 asks for no evidence. A Redis can go back behind writes that nothing else knows of, and be handed their
    positions again, which a manifest covers that a compactor is still making, or a reader believes to know.
    A pointer may be one manifest behind: its compactor died, or Redis lost that commit alone; then the log has what the
    manifest covers, and the next compaction completes it.

What is restored: `logservice.restoring.choice`. Why the heads are safe: `logservice.restoring.restoration`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Final

import msgspec

from logservice.catalog.snapshots import NewestSnapshot, Snapshots
from logservice.catalog.stored import StoredCatalog
from logservice.healing.put_back import NO_TESTIMONY, NOTHING, Healed, Healing, Testimony
from logservice.restoring.evidence import HealedLog
from logservice.restoring.lost_alone import LostAlone
from logservice.restoring.owed_snapshot import OwedSnapshot
from logservice.restoring.restoration import Restoration, RollbackSigns, heads_of_unread, signs_of_rollback
from logservice.restoring.restorer import Restorer
from shared.catalog import Catalog, Cluster
from shared.catalog.damage import Damage, DamageKind, kind_of
from shared.catalog.image import CatalogImage, CollectionImage, Images, merged
from shared.errors import Corrupt, Garbled, Unavailable
from shared.log.log import Log
from shared.log.naming import state_name
from shared.manifest.commits import CommitNumbers
from shared.objects.keys import collection_of
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.records.model import FIRST_POSITION
from shared.tenancy.control_records import ControlRecords

log = get_logger(__name__)

PASSED_OVER: Final = "passed over by a restoration, which took what came before it"


class Reconciler:
    """Compares Redis with the bucket, restores what Redis lost, and then opens the cluster to all other processes."""

    def __init__(
        self,
        catalog: Catalog,
        images: Images,
        log_: Log,
        objects: ObjectStore,
        snapshots: Snapshots,
        clock: Clock,
        healing: Healing | None = None,
        control: ControlRecords | None = None,
    ) -> None:
        self._journaled = StoredCatalog(objects, snapshots, clock)
        self._owed = OwedSnapshot(catalog.mark, images, objects, snapshots)
        self._catalog = catalog
        self._images = images
        self._log = log_
        self._objects = objects
        self._restorer = Restorer(images, log_, objects, clock)
        self._alone = LostAlone(catalog, images, log_, objects, clock)
        self._commits = CommitNumbers(objects)
        self._snapshots = snapshots
        self._clock = clock
        self._healing = healing
        self._control = control

    async def run(self) -> Cluster:
        """The cluster, open. Raises Unavailable, and Corrupt when bucket and Redis do not belong together or a manifest
        that must be restored cannot be read.
        """
        cluster = await self._read_mark()
        run = await self._catalog.mark.server_run()
        if self._control and (cluster is None or not run.verified):
            await self._control.project(opening=True)  # nobody is let in before every revoked key is known to be
        number = await self._snapshots.next_number()  # first: what is written under it follows from all before
        newest = await self._snapshots.newest_readable()
        if cluster is None:
            cluster = await (self._restore(newest, number, run.id) if newest else self._found(number, run.id))
        elif newest is not None and newest.image.cluster != cluster.id:
            raise Corrupt(f"Redis holds cluster {cluster.id}, the bucket holds cluster {newest.image.cluster}")
        elif not run.verified:
            cluster = await self._verify(cluster, newest, number, run.id)
        if self._healing and not run.verified:
            await self._healing.finished(run.id)
        return cluster

    async def reconciled(self, cluster: Cluster) -> bool:
        """Whether the server still is the run of itself that was compared, and holds the cluster in this epoch: another
        leader, whose lease was lost with Redis, may have restored it meanwhile, too.
        """
        try:
            if await self._catalog.mark.read() != cluster:
                return False
        except Garbled:
            return False
        return (await self._catalog.mark.server_run()).verified

    async def _read_mark(self) -> Cluster | None:
        """The cluster that the mark tells of. One that cannot be read is mended from the bucket, where every epoch
        begins with a snapshot; what Redis holds is there all the same, and is compared like that of a Redis that went
        back. Raises Corrupt when the bucket has no snapshot.
        """
        try:
            return await self._catalog.mark.read()
        except Garbled as error:
            newest = await self._snapshots.newest_readable()
            if newest is None:
                raise Corrupt(
                    "the mark of the cluster cannot be read, and the bucket has no snapshot", error.name
                ) from error
        image, _ = await self._journaled.with_journal(newest)
        log.error("mark_unreadable", cluster=image.cluster, epoch=image.epoch)
        await self._catalog.mark.mend(Cluster(image.cluster, image.epoch))
        return await self._catalog.mark.read()

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
        ran_on = await self._catalog.mark.close_connections() > 0
        token = await self._catalog.mark.begin()
        testimony = await self._healing.hear(run, ran_on=ran_on) if self._healing else NO_TESTIMONY
        image, damaged = await self._journaled.with_journal(newest)
        image = self._owed.with_known_heads(image)
        cluster = Cluster(image.cluster, image.epoch + 1)
        log.warning("redis_is_empty", cluster=cluster.id, collections=len(image.collections), snapshot_s=image.taken_s)
        restorations = await self._restorer.of_lost(image.collections)
        by_id = {each.collection: each for each in restorations}
        restored = [by_id[collection.id].restored(collection) for collection in image.collections]
        await self._write(
            msgspec.structs.replace(image, epoch=cluster.epoch, collections=restored, taken_s=self._clock.now()), number
        )
        await self._restorer.write_roots(restorations, cluster.epoch)
        await self._require_unopened(cluster)
        await self._restorer.restore_lost(image.collections, by_id, cluster.epoch)
        healed = await self._heal_restored(run, testimony, restorations, cluster.epoch)
        await self._require_unopened(cluster)
        await self._images.restore_rows(image, cluster.epoch)
        await self._catalog.unproven.add(key for each in restorations for key in each.unproven)
        await self._report(token, cluster, restorations, image, damaged, healed)
        await self._log.raise_commits(await self._commits.newest())
        return await self._catalog.mark.open(cluster, run, token)

    async def _heal_restored(
        self, run: str, testimony: Testimony, restorations: Iterable[Restoration], epoch: int
    ) -> Healed:
        """Puts back what witnesses hold of collections that were restored from the bucket in this epoch."""
        if self._healing is None:
            return NOTHING
        begins = {each.collection: each.log_begins for each in restorations}
        return await self._healing.beyond(run, testimony, begins, dict.fromkeys(begins, epoch))

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

    # A Redis that is there, and may have gone back in time

    async def _verify(self, cluster: Cluster, newest: NewestSnapshot | None, number: int, run: str) -> Cluster:
        """The cluster, open for this run of the server."""
        token = await self._catalog.mark.begin()  # before anything is read that may be lost meanwhile
        image, damaged = await self._journaled.with_journal(newest) if newest else (None, list[str]())
        image = self._owed.with_known_heads(image) if image else None
        known = {collection.id for collection in image.collections} if image else set()
        doubted = await self._catalog.mark.is_doubted()
        testimony = await self._healing.hear(run, ran_on=doubted) if self._healing else NO_TESTIMONY
        # Before any head is raised: it shows what is missing.
        healed = await self._healing.beyond_heads(run, testimony, known) if self._healing else NOTHING
        now, lost = await self._take(cluster, image)
        commits = await self._commits.newest()
        signs = replace(signs_of_rollback(now, image, commits, await self._log.commits()), lost=lost)
        signs = replace(signs, older_epoch=signs.older_epoch or doubted)
        if signs.went_back or healed.went_back:
            log.warning(
                "redis_went_back",
                heads=signs.heads_behind,
                rows=signs.newer is not None,
                commits=signs.lost_commits,
                older_epoch=signs.older_epoch,
                lost=len(lost),
            )
            if signs.newer is not None:
                epoch = _next_epoch(cluster, image)
                signs = replace(signs, newer=await self._images.bring_forward(now, signs.newer, epoch))
            heard = (run, testimony)
            brought = await self._bring_forward(token, cluster, image, signs, damaged, heard, _healed_logs(healed))
            await self._alone.restored(lost, now)
            await self._log.raise_commits(commits)  # it was the evidence
            return await self._catalog.mark.open(brought, run, token)
        heads = await self._owed.raise_heads(now, run)
        await self._owed.write(merged(now, None, heads), number, run)
        await self._alone.restored([], now)
        await self._catalog.mark.mark_verified(run, cluster.epoch)
        return cluster

    async def _read_stored(self) -> CatalogImage | None:
        """The catalog in the bucket; None when there is none that can be read."""
        stored = await self._journaled.newest()
        return stored.image if stored else None

    async def _take(self, cluster: Cluster, image: CatalogImage | None) -> tuple[CatalogImage, list[CollectionImage]]:
        """The catalog in Redis, once what it lost alone is recovered; and the collections whose states it lost, as the
        bucket knows them: those are compared, or restored, with all others.
        """
        await self._alone.recover_rows(image, self._read_stored)
        missing: set[str] = set()
        now = await self._images.take(cluster, missing)
        lost = [each for each in image.collections if each.id in missing] if image else []
        if lost:
            await self._alone.rejoin(cluster, lost)
            now = await self._images.take(cluster, set())
        await self._alone.rejoin_streams(now)
        return now, lost

    async def _bring_forward(
        self,
        token: str,
        cluster: Cluster,
        image: CatalogImage | None,
        signs: RollbackSigns,
        damaged: Sequence[str],
        heard: tuple[str, Testimony],
        healed_logs: Mapping[str, HealedLog],
    ) -> Cluster:
        """Evidence that Redis went back holds for every collection: of those that nothing is known of, the log
        alone may have been lost. The snapshot with the new heads and the new epoch comes first, so that a loss right
        after begins from them, and a crash right after shows. A collection whose state cannot be read stays as it is,
        in the new epoch, and stops no other one. Returns the cluster in its new epoch, yet to be opened.
        """
        brought = Cluster(cluster.id, _next_epoch(cluster, image))
        unreadable: dict[str, str] = {}
        collections = [collection async for collection in self._catalog.collections.all(unreadable)]
        living = await self._restorer.of_living(
            collections,
            {switched.id: switched.layout for switched in signs.switched},
            {collection.id: collection.head for collection in image.collections} if image else {},
            healed_logs,
            cluster.epoch,
        )
        present = {collection.id for collection in collections} | unreadable.keys()
        known = {row.id: row for row in [*signs.lost, *(signs.newer.collections if signs.newer else [])]}
        rows = [row for row in known.values() if row.id not in present]
        restorations = [*living, *await self._restorer.of_lost(rows)]
        by_id = {each.collection: each for each in restorations}
        number = await self._snapshots.next_number()
        taken = await self._images.take(cluster, set())
        heads = heads_of_unread(taken, image, unreadable)
        now = merged(taken, signs.newer, heads)
        now = merged(now, msgspec.structs.replace(now, collections=rows), {})
        restored = [by_id[one.id].restored(one) if one.id in by_id else one for one in now.collections]
        await self._write(msgspec.structs.replace(now, epoch=brought.epoch, collections=restored), number)
        await self._restorer.write_roots([each for each in restorations if not each.keeps_log], brought.epoch)
        await self._require_unopened(brought)
        await self._restorer.restore_lost(rows, by_id, brought.epoch)
        await self._restorer.bring_forward(collections, by_id, brought.epoch)
        # Once more for those whose log was replaced: what was put back into it went with it.
        healed = await self._heal_restored(*heard, [each for each in restorations if not each.keeps_log], brought.epoch)
        await self._restorer.write_roots([each for each in restorations if each.keeps_log], brought.epoch)
        await self._images.raise_heads(heads, brought.epoch)
        for collection_id, what in unreadable.items():
            await self._name_damage(collection_id, {state_name(collection_id): what})
        await self._require_unopened(brought)
        if signs.newer is not None:
            await self._images.restore_rows(signs.newer, brought.epoch)
        await self._catalog.unproven.add(key for each in restorations for key in each.unproven)
        await self._report(token, brought, restorations, image, damaged, healed)
        return brought

    async def _report(
        self,
        token: str,
        cluster: Cluster,
        restorations: Sequence[Restoration],
        image: CatalogImage | None,
        damaged: Sequence[str],
        healed: Healed,
    ) -> None:
        missing = [each.missing for each in restorations]
        known = {collection.id for collection in image.collections} if image else set()
        known |= {lost.collection for lost in missing} | set(image.graves if image else ())
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
                "put_back_ops": healed.put_back_ops,
                "lost": [msgspec.structs.asdict(lost) for lost in healed.lost],
            },
            token,
        )

    async def _name_damage(self, collection: str, damaged: Mapping[str, str]) -> None:
        for name, what in damaged.items():
            log.error("stored_data_damaged", collection=collection, object=name, what=what)
            found = Damage(name, kind_of(name), what, PASSED_OVER, "logservice", self._clock.now(), collection)
            await self._catalog.damages.report(found)

    async def _collections_in_bucket(self) -> set[str]:
        keys = [info.key async for info in self._objects.list("")]
        return {collection for key in keys if (collection := collection_of(key)) is not None}


def _next_epoch(cluster: Cluster, image: CatalogImage | None) -> int:
    """The epoch that begins when a Redis that went back, and holds this cluster, is brought forward to the image."""
    return max(cluster.epoch, image.epoch if image else 0) + 1


def _healed_logs(healed: Healed) -> dict[str, HealedLog]:
    return {
        name: HealedLog(head, healed.gaps_end.get(name, FIRST_POSITION)) for name, (head, _) in healed.began.items()
    }
