"""A collection in a backup as it was at a moment: which manifests, and which log behind each of them.

A backup reaches back to when the newest manifests in it were made: their log is there. Of a collection that keeps its
history the manifests before those and the sealed log objects (`shared.history.sealed_log`) are there, too, and it
reaches back as far as they do.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass

from polychrome.backup.archive import Archive
from polychrome.backup.model import FILES, CollectionBackup, LogPage, ManifestBackup, ShardBackup, decode_page
from shared.errors import Corrupt, InvalidArgument
from shared.history.archive import range_at
from shared.history.sealed_log import decode_sealed
from shared.log.state import Entry, position_of
from shared.objects.keys import SealedRange, parse_log_key
from shared.records.model import FIRST_POSITION


@dataclass(frozen=True, slots=True)
class CollectionMoment:
    """A collection at a moment: its head then, and the manifest of each shard (None: it had none)."""

    head: int
    manifests: list[ManifestBackup | None]


class ShardLog:
    """The log of a shard in a backup: what was sealed, then what its stream had."""

    def __init__(self, archive: Archive, shard: ShardBackup) -> None:
        self._archive = archive
        self._shard = shard
        self._sealed = {_range_of(page): page for page in shard.sealed}

    def reaches(self, start: int, head: int) -> bool:
        """Whether the backup has all of the log between two positions."""
        at = start
        while at < head and (sealed := range_at(list(self._sealed), at)) is not None:
            at = sealed.end
        return at >= min(head, self._shard.log_from)

    async def pages(self, start: int, head: int) -> AsyncIterator[list[Entry]]:
        """The entries at `start` or later of all appends that ended at `head` or before, some at a time, as far as the
        backup has them. Raises Corrupt, Unavailable.
        """
        at = start
        while at < head and (sealed := range_at(list(self._sealed), at)) is not None:
            if entries := _between(await self._load(self._sealed[sealed]), at, head):
                yield entries
            at = sealed.end
        for page in self._shard.log:
            if entries := _between(await self._load(page), at, head):
                yield entries

    async def first_after(self, time_ms: int) -> Entry | None:
        """The first entry that is later than this time."""
        for page in (*sorted(self._shard.sealed, key=lambda each: each.file.key), *self._shard.log):
            if page.last_ms > time_ms:
                return next(entry for entry in await self._load(page) if entry.time_ms > time_ms)
        return None

    async def begins_by(self, start: int, head: int, time_ms: int) -> bool:
        """Whether there is an entry between two positions that is no later than this time: then what came before it is
        not later, either.
        """
        async for entries in self.pages(start, head):
            return entries[0].time_ms <= time_ms
        return False

    async def _load(self, page: LogPage) -> list[Entry]:
        data = await self._archive.fetch_bytes(page.file)
        sealed = parse_log_key(page.file.key.removeprefix(FILES))
        return decode_page(data, page.file.key) if sealed is None else decode_sealed(sealed, data)


async def moment_of(archive: Archive, collection: CollectionBackup, at_s: float | None) -> CollectionMoment:
    """The collection as of a time, in seconds since the epoch; None: as it was when it was copied. Raises
    InvalidArgument when the backup does not reach back so far, Corrupt, Unavailable.
    """
    if at_s is None:
        return CollectionMoment(
            collection.head, [shard.manifests[-1] if shard.manifests else None for shard in collection.shards]
        )
    time_ms = int(at_s * 1000)
    logs = [ShardLog(archive, shard) for shard in collection.shards]
    late = [entry.first for log in logs if (entry := await log.first_after(time_ms)) is not None]
    head = min([collection.head, *late])
    manifests = [await _manifest_at(shard, log, head, at_s) for shard, log in zip(collection.shards, logs, strict=True)]
    return CollectionMoment(head, manifests)


async def _manifest_at(shard: ShardBackup, log: ShardLog, head: int, at_s: float) -> ManifestBackup | None:
    """The shard's manifest to begin with for that head, which the collection had at that time."""
    fitting = [manifest for manifest in reversed(shard.manifests) if manifest.covers <= head]
    for manifest in (*fitting, None):
        start = manifest.covers if manifest else FIRST_POSITION
        if not log.reaches(start, head):
            break
        # A manifest that was made later may hold later records; it does not when the log goes on earlier.
        if manifest is None or manifest.created_s <= at_s or await log.begins_by(start, head, int(at_s * 1000)):
            return manifest
    at = datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat(timespec="milliseconds")
    raise InvalidArgument(f"the backup does not reach back to {at}; an older one may")


def _range_of(page: LogPage) -> SealedRange:
    found = parse_log_key(page.file.key.removeprefix(FILES))
    if found is None:
        raise Corrupt(f"{page.file.key} is no sealed log object")
    return found


def _between(entries: list[Entry], start: int, head: int) -> list[Entry]:
    return [entry for entry in entries if position_of(entry.id) >= start and entry.end <= head]
