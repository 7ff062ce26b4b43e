"""The catalog as the bucket has it: the newest snapshot, and what the journal says beyond it."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from prometheus_client import Gauge

from logservice.catalog.snapshots import NewestSnapshot, Snapshots
from shared import limits
from shared.catalog.image import CatalogImage
from shared.catalog.journal_entry import JournalEntry, decode_entry
from shared.catalog.replay import is_newer, replayed
from shared.errors import Corrupt, Unavailable
from shared.objects.keys import JOURNAL, EntryName, parse_journal_key
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.process.telemetry import get_logger

log = get_logger(__name__)

AT_ONCE: Final = 16
"""Entries that are read at a time."""
DELETED_AT_ONCE: Final = 1000
"""Entries that are deleted by one call."""
REST_RATIO: Final = 20
"""A listing of the journal that took t seconds is followed by none for 20 t: a bucket that refuses deletions lets the
journal grow.
"""

UNTIDY: Final = Gauge("polychrome_logservice_journal_entries", "Entries of the catalog's journal in the bucket.")


class StoredImage(NamedTuple):
    """The catalog, and the keys of what is damaged: entries, the changes in which are lost unless later ones say the
    same, and snapshots that are newer than the one that was read.
    """

    image: CatalogImage
    damaged: list[str]


class StoredCatalog:
    """Reads the catalog from one bucket. Everything raises Unavailable."""

    def __init__(self, objects: ObjectStore, snapshots: Snapshots, clock: Clock) -> None:
        self._objects = objects
        self._snapshots = snapshots
        self._clock = clock

    async def newest(self) -> StoredImage | None:
        """The catalog as it was last acknowledged; None when the bucket has none. Raises Corrupt when the snapshot
        cannot be read; a damaged entry is named, and the others count.
        """
        newest = await self._snapshots.newest_readable()
        return None if newest is None else await self.with_journal(newest)

    async def with_journal(self, newest: NewestSnapshot) -> StoredImage:
        """The snapshot with all that the journal says beyond it.

        Every epoch, and every time that all heads are raised, begins with a snapshot. So snapshots that are damaged may
        each stand for one epoch more, and for heads that are once more raised.
        """
        image = newest.image
        names = await entry_names(self._objects)
        newer = [key for key, (epoch, number) in names if is_newer(epoch, number, image)]
        entries = await map_concurrently(self._read, newer, at_once=AT_ONCE)
        damaged = [key for key, entry in zip(newer, entries, strict=True) if entry is None]
        found = [entry for entry in entries if entry is not None and entry.cluster == image.cluster]
        if newer:
            log.info("catalog_journal_read", entries=len(found), damaged=len(damaged), older=len(names) - len(newer))
        image = replayed(image, found, self._clock.now())
        return StoredImage(_beyond(image, newest.numbers_passed), [*newest.passed_over, *damaged])

    async def _read(self, key: str) -> JournalEntry | None:
        """None for a damaged entry, which is reported."""
        try:
            return decode_entry(key, await self._objects.get(key))
        except ObjectNotFound:
            raise Unavailable("The journal of the catalog was tidied while it was read") from None
        except Corrupt as error:
            log.error("catalog_journal_damaged", key=key, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
            return None


def _beyond(image: CatalogImage, snapshots: int) -> CatalogImage:
    """The image with an epoch and heads that are not behind those after so many more snapshots."""
    raised = [
        msgspec.structs.replace(collection, head=collection.head + snapshots * limits.BACKLOG_OPS_CEILING)
        for collection in image.collections
    ]
    return msgspec.structs.replace(image, epoch=image.epoch + snapshots, collections=raised)


class JournalTidier:
    """Deletes the entries that two snapshots contain: when the newer one turns out to be damaged, the older one and the
    journal say the same. Everything raises Unavailable.
    """

    def __init__(self, objects: ObjectStore, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock
        self._newest: CatalogImage | None = None
        self._contains: CatalogImage | None = None
        self._tidied: CatalogImage | None = None
        self._rest_until_s = 0.0

    async def step(self, written: CatalogImage | None) -> int:
        """Deletes what is older than the snapshot that was written before the last one, which is `written`; returns how
        many entries that was.
        """
        if written is not self._newest:
            self._contains, self._newest = self._newest, written
        began_s, contains = self._clock.monotonic(), self._contains
        if contains is None or contains is self._tidied or began_s < self._rest_until_s:
            return 0
        names = await entry_names(self._objects)
        took_s = self._clock.monotonic() - began_s
        self._rest_until_s = began_s + (REST_RATIO + 1) * took_s
        contained = [key for key, (epoch, number) in names if not is_newer(epoch, number, contains)]
        UNTIDY.set(len(names))
        for start in range(0, len(contained), DELETED_AT_ONCE):
            await self._objects.delete(contained[start : start + DELETED_AT_ONCE])
        UNTIDY.set(len(names) - len(contained))
        self._tidied = contains
        return len(contained)


async def entry_names(objects: ObjectStore) -> list[tuple[str, EntryName]]:
    """The keys of all entries of the journal, with what they say."""
    return [(info.key, name) async for info in objects.list(JOURNAL) if (name := parse_journal_key(info.key))]
