"""Restores collections one by one: each to a state of one moment (`logservice.restoring.choice`), in a new epoch."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from logservice.restoring.bucket_tails import BucketTails
from logservice.restoring.choice import Choice, StoredState, Taken, choose, known_epoch
from logservice.restoring.evidence import Evidence, HealedLog
from logservice.restoring.restoration import Restoration, restoration_of
from shared.catalog import Collection
from shared.catalog.image import CollectionImage, Images
from shared.cluster.placement import Layout
from shared.errors import Corrupt, Gone
from shared.log.log import Log
from shared.manifest.roots import RootStore
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.process.telemetry import get_logger
from shared.records.model import FIRST_POSITION

log = get_logger(__name__)

AT_ONCE: Final = 16
"""Collections that are looked at or restored at a time."""


class Restorer:
    """Finds out what collections are restored to, and does it. Everything raises Unavailable."""

    def __init__(self, images: Images, log_: Log, objects: ObjectStore, clock: Clock) -> None:
        self._images = images
        self._log = log_
        self._evidence = Evidence(objects)
        self._tails = BucketTails(objects, self._evidence)
        self._roots = RootStore(objects)
        self._clock = clock
        self._written_by = f"logservice {uuid.uuid4().hex}"

    async def of_lost(self, images: Iterable[CollectionImage]) -> list[Restoration]:
        """The restorations of collections that Redis has nothing of."""

        async def plan(image: CollectionImage) -> Restoration:
            stored = await self._evidence.stored(image.id, image.layout)
            found = await self._tails.extend(image.id, choose(None, stored), stored)
            return restoration_of(image.id, image.name, found.choice, found.stored, image.head, entries=found.entries)

        return await map_concurrently(plan, images, at_once=AT_ONCE)

    async def of_living(
        self,
        collections: Iterable[Collection],
        layouts: Mapping[str, Layout],
        heads: Mapping[str, int],
        healed: Mapping[str, HealedLog],
        epoch: int,
    ) -> list[Restoration]:
        """The restorations of collections that are there, in a Redis that went back. `layouts` are those that the
        newest snapshot has, where they are later than Redis' own; `heads` are the snapshot's. `healed` are the logs to
        which something was put back, `epoch` is that of the cluster as Redis has it.

        Of a collection whose manifests or roots cannot be read, Redis' own state is kept: it is reported, and does not
        stop the others; its compactors and its readers report it too.
        """

        async def plan(collection: Collection) -> Restoration:
            head = heads.get(collection.id, 0)
            try:
                stored = await self._evidence.stored(collection.id, layouts.get(collection.id, collection.layout))
                known = replace(collection, epoch=known_epoch(collection.epoch, epoch, stored))
                log_before = healed.get(collection.id, HealedLog())
                own = await self._evidence.own(known, stored, self._log, log_before)
            except Corrupt as error:
                log.error("collection_not_compared", collection=collection.id, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
                return _unchanged(collection, head)
            found = await self._tails.extend(collection.id, choose(own, stored), stored)
            return restoration_of(
                collection.id, collection.name, found.choice, found.stored, head, collection.head, found.entries
            )

        return await map_concurrently(plan, collections, at_once=AT_ONCE)

    async def write_roots(self, restorations: Iterable[Restoration], epoch: int) -> None:
        """Writes the roots of the new epoch: of what is restored from the bucket before that is done, of what keeps its
        log after its state is of the new epoch.
        """

        async def write(restoration: Restoration) -> None:
            root = restoration.new_root(epoch, self._written_by, self._clock.now())
            if root is not None:
                await self._roots.create(root)

        await map_concurrently(write, restorations, at_once=AT_ONCE)

    async def restore_lost(
        self, images: Iterable[CollectionImage], restorations: Mapping[str, Restoration], epoch: int
    ) -> None:
        """Puts the states of these collections back. A state may be there without its row, from an attempt that died,
        or because Redis went back to the moment between the two: what it holds is replaced.
        """

        async def restore(image: CollectionImage) -> None:
            each = restorations[image.id]
            choice, restored = each.choice, each.restored(image)
            with suppress(Gone):
                await self._images.replace_log(
                    image.id, choice.layout, epoch, choice.position, choice.pointers, restored.dimension
                )
            await self._images.restore_state(restored, each.head, epoch, choice.position, choice.pointers)
            await self._images.put_back(image.id, epoch, each.entries)

        await map_concurrently(restore, images, at_once=AT_ONCE)

    async def bring_forward(
        self, collections: Iterable[Collection], restorations: Mapping[str, Restoration], epoch: int
    ) -> None:
        """Gives collections that are there their states. Every rebuild under way is forgotten: the bucket may be ahead
        of what Redis says of it. It is begun anew, with shards of its own.
        """

        async def bring(collection: Collection) -> None:
            each = restorations[collection.id]
            choice = each.choice
            with suppress(Gone):
                await self._images.abandon_rebuild(collection)
                if choice.taken is not Taken.LOG:
                    await self._images.replace_log(
                        collection.id, choice.layout, epoch, choice.position, choice.pointers, each.stored.dimension
                    )
                    # Before the heads are raised: an attempt that dies here leaves a log that does not reach so far.
                    await self._images.put_back(collection.id, epoch, each.entries)
                await self._images.raise_heads({collection.id: each.head}, epoch)
                if choice.taken is Taken.LOG:
                    await self._move_pointers(collection, choice, epoch)

        await map_concurrently(bring, collections, at_once=AT_ONCE)

    async def _move_pointers(self, collection: Collection, choice: Choice, epoch: int) -> None:
        """Moves pointers on to manifests that the bucket has, and whose operations are in Redis' own log or were
        trimmed from it.
        """
        for shard, before, after in zip(choice.layout.numbers, collection.pointers, choice.pointers, strict=True):
            if after is None or after == before:
                continue
            moved = await self._log.commit(collection.id, shard, before, after, epoch)
            if not moved and before is None and await self._log.repoint(collection.id, shard, after, epoch):
                log.error("pointer_restored", collection=collection.id, shard=shard)


def _unchanged(collection: Collection, snapshot_head: int) -> Restoration:
    """The restoration that keeps what Redis has, of a collection whose objects cannot be read."""
    pointers = list(collection.pointers)
    covered = [pointer.covers if pointer else FIRST_POSITION for pointer in pointers]
    choice = Choice(Taken.LOG, collection.layout, pointers, covered, min(covered))
    return restoration_of(
        collection.id, collection.name, choice, StoredState(collection.layout), snapshot_head, collection.head
    )
