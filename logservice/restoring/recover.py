"""Gives a collection's lost state back, of which the catalog still has the row."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import msgspec

from logservice.catalog.snapshots import Snapshots
from logservice.catalog.stored import StoredCatalog
from logservice.restoring.bucket_tails import BucketTails
from logservice.restoring.choice import OwnState, StoredState, Taken, choose
from logservice.restoring.evidence import Evidence
from logservice.restoring.restoration import MissingRange, Restoration, restoration_of
from logservice.restoring.unreadable_fields import VALUE_BYTES_MAX, UnreadableFields
from shared.catalog import Cluster, Collection
from shared.catalog.image import CatalogImage, CollectionImage, Images, merged
from shared.errors import Unavailable
from shared.log.log import Log
from shared.log.naming import state_name
from shared.log.state import Pointer
from shared.manifest.model import Manifest, ParentRef
from shared.manifest.roots import RootStore, make_root
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.records.digest import to_hex
from shared.records.model import FIRST_POSITION

log = get_logger(__name__)

EMPTY_DIGEST: Final = to_hex(0)
"""The digest of a shard without records."""


class Recovery:
    """Restores states one by one, when `logservice.restoring.database_recovery` misses them: from the newest snapshot,
    and from what the bucket has of the collection, as when all of Redis was lost.
    """

    def __init__(
        self, cluster: Cluster, images: Images, log_: Log, snapshots: Snapshots, objects: ObjectStore, clock: Clock
    ) -> None:
        self._cluster = cluster
        self._log = log_
        self._images = images
        self._snapshots = snapshots
        self._journaled = StoredCatalog(objects, snapshots, clock)
        self._objects = objects
        self._clock = clock
        self._unreadable = UnreadableFields(images, clock)
        self._manifests = ManifestStore(objects)
        self._roots = RootStore(objects)
        self._evidence = Evidence(objects)
        self._tails = BucketTails(objects, self._evidence)
        self._written_by = f"logservice {uuid.uuid4().hex}"

    async def recover(self, collection_id: str, row: dict[str, Any]) -> bool:
        """Whether the row must stay, because the bucket knows the collection. Then its state is back, with a head
        beyond every position that was handed out, unless no snapshot says what it was like; one without any shard, in
        which nothing was ever stored, says nothing. Raises Unavailable, Corrupt.
        """
        number = await self._snapshots.next_number()
        journaled = await self._journaled.newest()
        image = journaled.image if journaled else None
        known = (
            next((each for each in image.collections if each.id == collection_id and each.layout.count), None)
            if image
            else None
        )
        if image is None or known is None:
            is_in_bucket = bool([True async for _ in self._objects.list(f"{collection_id}/")])
            if is_in_bucket:
                log.error("state_lost", collection=collection_id, name=row["name"])
            return is_in_bucket
        await self._unreadable.drop(known)
        stored = await self._evidence.stored(collection_id, known.layout)
        own = await self._own(known, stored)
        found = await self._tails.extend(collection_id, choose(own, stored), stored)
        restoration = restoration_of(
            collection_id, known.name, found.choice, found.stored, known.head, own.head if own else 0, found.entries
        )
        restored = restoration.restored(known)
        await self._snapshot(image, restored, number)
        if restoration.choice.taken is Taken.LOG:
            dimension = restored.dimension or await self._images.logged_dimension(known)
            filled = msgspec.structs.replace(restored, dimension=dimension)
            await self._images.fill_state(
                filled, filled.head, self._cluster.epoch, restoration.choice.pointers, is_open=True
            )
        else:
            await self._images.clear_state(collection_id)
            await self._from_bucket(restored, restoration)
            await self._report(restoration.missing)
        await self._unreadable.restored(known)
        log.error("state_restored", **asdict(restoration.missing))
        return True

    async def drop_shard_fields(self, collection_id: str) -> list[str]:
        """Removes the fields of the collection's shards that cannot be read, so that they are made again like lost
        ones; their names.
        """
        found = await self._images.drop_unreadable_of_shards(collection_id)
        if found:
            values = {name: repr(value[:VALUE_BYTES_MAX]) for name, value in sorted(found.items())}
            log.error("state_unreadable", collection=collection_id, fields=values)
        return sorted(found)

    async def recover_streams(self, collection: Collection) -> None:
        """Gives the collection's state back what it lost of what its streams say."""
        filled = await self._images.rejoin_streams(collection)
        if filled:
            log.error("stream_fields_restored", collection=collection.id, name=collection.name, fields=filled)
            await self._unreadable.refilled(collection, filled)

    async def refilled(self, collection: Collection, fields: Sequence[str]) -> None:
        """Says in the report of the last loss that these fields of the collection's state were made again."""
        await self._unreadable.refilled(collection, fields)
        await self._images.damages.clear([state_name(collection.id)])

    async def _report(self, missing: MissingRange) -> None:
        """Adds what is missing to the report of the last reconciliation."""

        def amended(report: dict[str, Any]) -> dict[str, Any]:
            others = [each for each in report.get("missing", []) if each["collection"] != missing.collection]
            return {**report, "missing": [*others, asdict(missing)]}

        await self._images.amend_report(amended)

    async def _snapshot(self, image: CatalogImage, restored: CollectionImage, number: int) -> None:
        """Writes a snapshot with the new head before anything is handed out from it: a loss of Redis right after must
        begin from it. Other collections that have lost their state stay in it as the bucket has them.
        """
        missing: set[str] = set()
        now = await self._images.take(self._cluster, missing)
        if restored.id not in missing | {each.id for each in now.collections}:
            raise Unavailable(f"Collection {restored.id} was deleted meanwhile")
        others = [each for each in image.collections if each.id in missing and each.id != restored.id]
        lost = msgspec.structs.replace(
            image, tenants=[], databases=[], collections=[restored, *others], graves={}, families={}
        )
        if not await self._snapshots.write(merged(now, lost, {restored.id: restored.head}), number):
            raise Unavailable("Another snapshot of the catalog was written meanwhile")

    async def _from_bucket(self, restored: CollectionImage, restoration: Restoration) -> None:
        """Gives the collection what the bucket has of it. The cluster is open: until the log is there, the state lacks
        a field without which nothing is appended, read or compacted. The root is beyond all others of this epoch, and
        before that of the first round, which has the log in its manifests.
        """
        collection_id, choice, has_log = restored.id, restoration.choice, bool(restoration.entries)
        epoch, shards = self._cluster.epoch, list(zip(choice.layout.numbers, choice.pointers, strict=True))
        pointers = [await self._supersede(collection_id, shard, pointer, epoch) for shard, pointer in shards]
        end = restored.head - 1 if has_log else restored.head
        position = choice.position if has_log else end
        now_s = self._clock.now()
        await self._roots.create(
            make_root(collection_id, epoch, end, choice.layout, pointers, self._written_by, now_s, with_log=has_log)
        )
        await self._images.restore_state(restored, restored.head, epoch, position, pointers, is_complete=not has_log)
        if has_log:
            await self._images.put_back(collection_id, epoch, restoration.entries)
            await self._images.fill_state(restored, restored.head, epoch, pointers, is_open=True)

    async def _own(self, known: CollectionImage, stored: StoredState) -> OwnState | None:
        """The state that the collection's streams tell of: its log goes on if they are whole behind the newest
        manifests. None when there is nothing in them.
        """
        rejoined = await self._images.rejoin_state(known)
        if not rejoined.streams or stored.layout != known.layout:
            return None
        shards, pointers = known.layout.numbers, stored.latest
        covers = [pointer.covers if pointer else FIRST_POSITION for pointer in pointers]
        whole = [await self._log.is_whole(known.id, *each) for each in zip(shards, covers, strict=True)]
        # No state says any more which entry was the newest of each stream.
        whole.append(await self._log.reach_one_end(known.id, dict(zip(shards, covers, strict=True))))
        return OwnState(self._cluster.epoch, max(rejoined.end, *covers), known.layout, pointers, all(whole))

    async def _supersede(self, collection_id: str, shard: int, pointer: Pointer | None, epoch: int) -> Pointer | None:
        """A copy of the manifest whose version is beyond those of all manifests of the shard: those that were not taken
        are of the same epoch, and one that continues this one would be completed, or is yet to be created.
        """
        version = max(await self._manifests.versions(collection_id, shard), default=0)
        taken = await self._manifests.load(collection_id, shard, pointer) if pointer else None
        while True:
            version += 1
            created = await self._manifests.create(
                Manifest(
                    collection=collection_id,
                    shard=shard,
                    version=version,
                    parent=ParentRef(pointer.version, pointer.hash) if pointer else None,
                    covers=taken.covers if taken else FIRST_POSITION,
                    dimension=taken.dimension if taken else 0,
                    segments=taken.segments if taken else [],
                    rows=taken.rows if taken else 0,
                    digest=taken.digest if taken else EMPTY_DIGEST,
                    written_by=self._written_by,
                    created_s=self._clock.now(),
                    epoch=epoch,
                )
            )
            if created is not None:
                return created
