"""Snapshots of the catalog in the bucket: `catalog/<number, 20 digits>.json.gz`, created once each, the newest
counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge

from logservice.catalog.vanished import Vanished
from logservice.garbage.plan import LayoutChange
from shared.catalog import Cluster, Collection
from shared.catalog.image import CatalogImage, Images, lost_keys
from shared.catalog.snapshot_form import decode_snapshot, encode_snapshot
from shared.errors import Corrupt, Unavailable
from shared.objects.keys import SNAPSHOTS, parse_snapshot_key, snapshot_key
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

log = get_logger(__name__)

REST_RATIO: Final = 10
"""A snapshot that took t seconds is followed by a pause of 10 t: a large catalog that changes all the time costs a
tenth of a core.
"""
REFRESH_S: Final = 60.0
"""Period at which a snapshot is written although the catalog has not changed, if heads or metadata keys have: they move
without counting as changes of the catalog."""

SNAPSHOTS_WRITTEN: Final = Counter("polychrome_logservice_snapshots_total", "Catalog snapshots written to the bucket.")
SNAPSHOT_BYTES: Final = Gauge("polychrome_logservice_snapshot_bytes", "Size of the newest catalog snapshot.")


class NewestSnapshot(NamedTuple):
    """The newest snapshot that can be read. `passed_over` says of each newer one, by its key, how it is damaged;
    `numbers_passed` is the difference of its number to the highest one.
    """

    image: CatalogImage
    passed_over: Mapping[str, str] = MappingProxyType({})
    numbers_passed: int = 0


class Snapshots:
    """The snapshots in one bucket, of which the newest `keep` stay. Only the leader writes, but two writers at once do
    no harm: a number is taken once. Everything raises Unavailable.
    """

    def __init__(self, objects: ObjectStore, keep: int) -> None:
        self._objects = objects
        self._keep = keep

    async def newest(self) -> CatalogImage | None:
        """The image of `newest_readable`."""
        found = await self.newest_readable()
        return found.image if found else None

    async def newest_readable(self) -> NewestSnapshot | None:
        """The newest snapshot that can be read; None when the bucket has none. A damaged one is named in the log, and
        passed over: what it alone knows the journal knows, too (`logservice.catalog.stored`). Raises Corrupt when there
        are snapshots, and all are damaged.
        """
        numbers = await self._numbers()
        damaged: dict[str, str] = {}
        for number in reversed(numbers):
            key = snapshot_key(number)
            try:
                image = await self._read(key)
            except Corrupt as error:
                log.error("catalog_snapshot_damaged", object=key, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
                damaged[key] = error.message
                continue
            if damaged:
                log.error("catalog_snapshot_older", object=key, taken_s=image.taken_s, damaged=sorted(damaged))
            return NewestSnapshot(image, damaged, numbers[-1] - number)
        if damaged:
            raise Corrupt(f"all {len(damaged)} snapshots of the catalog are damaged", min(damaged))
        return None

    async def _read(self, key: str) -> CatalogImage:
        """Raises Corrupt, and Unavailable when another process has deleted it meanwhile."""
        try:
            data = await self._objects.get(key)
        except ObjectNotFound:
            raise Unavailable("Snapshots of the catalog were deleted while they were read") from None
        try:
            return await asyncio.to_thread(decode_snapshot, data)
        except Corrupt as error:
            raise Corrupt(error.message, key) from error

    async def next_number(self) -> int:
        """The number for an image that is yet to be taken."""
        numbers = await self._numbers()
        return numbers[-1] + 1 if numbers else 1

    async def write(self, image: CatalogImage, number: int) -> bool:
        """Writes a snapshot, under a number that was asked for before the image was taken, so that of two snapshots the
        one with the higher number is never the older image. False, and nothing was written, when another process has
        taken the number since.
        """
        data = await asyncio.to_thread(encode_snapshot, image)
        if not await self._objects.create(snapshot_key(number), data):
            log.warning("catalog_snapshot_lost", number=number)
            return False
        SNAPSHOTS_WRITTEN.inc()
        SNAPSHOT_BYTES.set(len(data))
        log.info("catalog_snapshot", number=number, bytes=len(data), collections=len(image.collections))
        try:
            numbers = await self._numbers()
            await self._objects.delete([snapshot_key(old) for old in numbers[: -self._keep]])
        except Unavailable as error:  # the snapshot is there all the same, and the next one deletes them
            log.warning("catalog_snapshots_not_deleted", message=error.message)
        return True

    async def _numbers(self) -> list[int]:
        found = [parse_snapshot_key(info.key) async for info in self._objects.list(SNAPSHOTS)]
        return sorted(number for number in found if number is not None)


class Snapshotter:
    """Writes a snapshot soon after the catalog has changed. Everything raises Unavailable."""

    def __init__(
        self, images: Images, snapshots: Snapshots, cluster: Cluster, clock: Clock, rest_ratio: float = REST_RATIO
    ) -> None:
        self._rest_ratio = rest_ratio
        self._vanished = Vanished(images.losses)
        self._images = images
        self._snapshots = snapshots
        self._cluster = cluster
        self._clock = clock
        self._written: CatalogImage | None = None
        self._rest_until_s = 0.0
        self._refresh_at_s = 0.0

    @property
    def written(self) -> CatalogImage | None:
        """The snapshot that this process wrote last."""
        return self._written

    def layout_changes(self, collections: Iterable[Collection]) -> dict[str, LayoutChange]:
        """The layout changes of collections that got other shards, as far as the newest snapshot has them."""
        known = {collection.id: collection.layout for collection in self._written.collections} if self._written else {}
        return {
            collection.id: LayoutChange(collection.layout.first, collection.laid_s)
            for collection in collections
            if collection.layout.first and known.get(collection.id) == collection.layout
        }

    async def _newest(self) -> CatalogImage | None:
        try:
            return await self._snapshots.newest()
        except Corrupt as error:
            log.error("catalog_snapshots_damaged", message=error.message)  # noqa: TRY400 (no stack: data is at fault)
            return None

    async def _restore_keys(self, lost: Mapping[str, Sequence[tuple[str, str]]]) -> bool:
        """Puts back the metadata keys of collections that Redis lost alone; whether there were some."""
        for collection_id, pairs in lost.items():
            await self._images.add_keys(collection_id, pairs)
            log.error("metadata_keys_restored", collection=collection_id, keys=len(pairs))
        return bool(lost)

    async def step(self, changes: int) -> bool:
        """Writes a snapshot if one is due; whether it did. `changes` is the catalog's present number of changes."""
        now = self._clock.monotonic()
        changed = self._written is None or self._written.changes != changes
        if now < self._rest_until_s or not (changed or now >= self._refresh_at_s):
            return False
        # A process that sleeps through a restoration writes no image from before it: either taking it compares the
        # epoch after that, or the restoration's own snapshot has taken the number.
        number = await self._snapshots.next_number()
        before = self._written or await self._newest()
        image = await self._images.take(self._cluster)
        if before is not None:
            await self._vanished.require_none(before, image)
        if before is not None and await self._restore_keys(lost_keys(before, image)):
            return False  # the next step takes an image that has them
        wrote = not image.same_content(self._written) and await self._snapshots.write(image, number)
        if wrote:
            self._written = image
        took_s = self._clock.monotonic() - now
        self._rest_until_s = now + (self._rest_ratio + 1) * took_s
        self._refresh_at_s = now + max(REFRESH_S, self._rest_ratio * took_s)
        return wrote
