"""Taking a backup of a running cluster.

Of each collection: its row and its state as of one moment (one reply of Redis), each shard's committed manifest with
the files of its segments, and its log from there to the head of that moment; of one that keeps its history, that, too.
What the cluster compacts, trims or collects meanwhile shows as a gap in the log or as an object that is gone: then the
collection is read anew. What was copied until then is not copied again, so that every try is shorter than the one
before.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final

from polychrome.backup.archive import Archive
from polychrome.backup.model import (
    Backup,
    CollectionBackup,
    DatabaseBackup,
    LogPage,
    ManifestBackup,
    ShardBackup,
    StoredFile,
    TenantBackup,
    encode_page,
)
from polychrome.backup.survey import Place, places_in
from shared.catalog import Catalog, Cluster, Collection, Database
from shared.errors import Corrupt, Unavailable
from shared.history.archive import SealedLogs
from shared.history.past_manifests import PastManifests
from shared.history.sealed_log import encode_sealed
from shared.log.log import Log
from shared.log.state import Entry, position_of
from shared.log.tails import LogTail, TailGone, pages_of
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.objects.keys import SealedRange
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.records.model import FIRST_POSITION

TRIES: Final = 32
"""Times that a collection is read: it is read anew when it was compacted in the middle and its old files are gone."""
COLLECTIONS_AT_ONCE: Final = 4
SHARDS_AT_ONCE: Final = 4
FILES_AT_ONCE: Final = 4


class _MovedOn(Exception):  # not an error: a reason to begin anew
    """The collection is not what it was at the beginning of the try."""


class Taker:
    """Takes backups of the cluster whose catalog, log and bucket these are. `wanted` are the ids of
    the collections to take, None for all.
    """

    def __init__(
        self,
        catalog: Catalog,
        log: Log,
        objects: ObjectStore,
        archive: Archive,
        clock: Clock,
        wanted: frozenset[str] | None = None,
    ) -> None:
        self._catalog = catalog
        self._log = log
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._past = PastManifests(objects)
        self._sealed = SealedLogs(objects)
        self._archive = archive
        self._clock = clock
        self._wanted = wanted

    async def take(self, cluster: Cluster) -> Backup:
        """Takes a backup, which counts on return. What cannot be read of one collection is named in it, and does not
        keep the others from being backed up. Raises Unavailable, also when no collection can be read, and Corrupt.
        """
        begun_s = self._clock.now()
        name = name_of(begun_s)
        await self._archive.begin(name)
        tenants = await self._catalog.tenants.all()
        databases = [database async for database in self._catalog.databases.all()]
        failed = dict[str, str]()
        wanted = [place for database in databases for place in await self._places(database, failed)]
        away: list[Unavailable] = []

        async def take_or_name(place: Place) -> CollectionBackup | None:
            try:
                return await self._take_collection(place)
            except (Corrupt, Unavailable) as error:  # the others are worth having all the same
                failed[place.id] = f"{place.path}: {error.message}"
                if isinstance(error, Unavailable):
                    away.append(error)
                return None

        taken = await map_concurrently(take_or_name, wanted, at_once=COLLECTIONS_AT_ONCE)
        if away and not any(taken):
            raise away[0]  # it is not one collection that is away
        if await self._catalog.mark.read() != cluster:
            raise Unavailable("The cluster was lost or restored while its backup was taken")
        backup = Backup(
            name=name,
            cluster=cluster.id,
            begun_s=begun_s,
            ended_s=self._clock.now(),
            tenants=[TenantBackup(tenant.name, tenant.resource_name) for tenant in tenants],
            databases=[DatabaseBackup(database.tenant, database.name, database.id) for database in databases],
            collections=[collection for collection in taken if collection is not None],
            failed=failed,
            selected=None if self._wanted is None else sorted(self._wanted),
        )
        await self._archive.finish(backup)
        return backup

    async def _places(self, database: Database, failed: dict[str, str]) -> list[Place]:
        """The collections of the database that are to be taken; those that cannot be read are added to `failed`, and
        so is a database that has lost some.
        """
        places = await places_in(self._catalog, database)
        if self._wanted is not None:
            places = [place for place in places if place.id in self._wanted]
        elif not await self._catalog.losses.agrees(database.key):
            await self._catalog.losses.note(database.key)
            failed[f"{database.tenant}/{database.name}"] = "some of its collections were lost and are being restored"
        failed |= {place.id: f"{place.path}: {place.problem}" for place in places if place.problem is not None}
        return [place for place in places if place.problem is None]

    async def _take_collection(self, place: Place) -> CollectionBackup | None:
        """The collection, whose files are at the destination; None when it was deleted meanwhile."""
        database, collection_id = place.within, place.id
        for _ in range(TRIES):
            taken_s = self._clock.now()
            collection = await self._catalog.collections.get_by_id(database, collection_id)
            if collection is None:
                return None
            try:
                shards = await map_concurrently(
                    lambda number, collection=collection: self._take_shard(database, collection, number),  # type: ignore[misc]  # no type for a lambda with a default
                    range(collection.shards),
                    at_once=SHARDS_AT_ONCE,
                )
            except (_MovedOn, TailGone):
                continue
            return _record(collection, shards, taken_s)
        raise Unavailable(f"Collection {collection_id} changes faster than it can be copied")

    async def _take_shard(self, database: Database, collection: Collection, number: int) -> ShardBackup:
        """Raises _MovedOn, TailGone, Corrupt."""
        shard, pointer = collection.layout.numbers[number], collection.pointers[number]
        ranges = await self._sealed.ranges(collection.id, shard)
        kept, manifests = None, list[ManifestBackup]()
        if pointer is not None:
            try:
                kept = await self._manifests.load(collection.id, shard, pointer)
                manifests.append(await self._keep_manifest(kept))
            except (Corrupt, ObjectNotFound) as error:
                now = await self._catalog.collections.get_by_id(database, collection.id)
                if now is None or (now.layout, now.pointers) != (collection.layout, collection.pointers):
                    raise _MovedOn from error
                raise Corrupt(f"{collection.id}/{shard} cannot be backed up: {error}") from error
        covers = pointer.covers if pointer else FIRST_POSITION
        sealed = [page for each in ranges if (page := await self._keep_sealed(each))]
        while ranges and kept is not None and (parent := await self._past.parent(kept)) is not None:
            kept = parent.manifest
            try:
                manifests.insert(0, await self._keep_manifest(kept))
            except ObjectNotFound:  # of this one, and so of those before it, the segments are being collected
                break
        log_from, pages = await self._keep_tail(collection, number, ranges, covers)
        return ShardBackup(manifests, sealed, pages, log_from)

    async def _keep_manifest(self, manifest: Manifest) -> ManifestBackup:
        """Raises ObjectNotFound when one of its files is gone, and Corrupt."""
        wanted = [(f"{ref.info.path}/{file.name}", file) for ref in manifest.segments for file in ref.info.files]
        files = await map_concurrently(
            lambda each: self._archive.keep_file(self._objects, each[0], each[1].bytes, each[1].checksum),
            wanted,
            at_once=FILES_AT_ONCE,
        )
        file = await self._archive.keep_bytes(manifest.key, manifest.encode())
        return ManifestBackup(file, manifest.covers, manifest.created_s, files)

    async def _keep_sealed(self, sealed: SealedRange) -> LogPage | None:
        """None for an object that has been collected meanwhile. Raises Corrupt."""
        entries = await self._sealed.load(sealed)
        if entries is None:
            return None
        file = await self._archive.keep_bytes(sealed.key, encode_sealed(sealed, entries))
        return _page(file, entries)

    async def _keep_tail(
        self, collection: Collection, number: int, ranges: list[SealedRange], covers: int
    ) -> tuple[int, list[LogPage]]:
        """The position from which on a shard's log is copied out of its stream, and that log. `ranges` are its sealed
        log objects, `covers` is the end of its newest manifest. Raises TailGone.

        What is compacted and not yet sealed is in the stream alone. But a collection that keeps no history may have
        sealed log of single writes, of the class `bucket`: what came after them was trimmed, and is nowhere. Then the
        log begins with what the manifest does not cover.
        """
        log_from = max((sealed.end for sealed in ranges if sealed.end <= covers), default=covers)
        try:
            return log_from, await self._keep_log(collection, number, log_from)
        except TailGone:
            sealed_meanwhile = await self._sealed.ranges(collection.id, collection.layout.numbers[number]) != ranges
            if sealed_meanwhile or log_from == covers:
                raise
        return covers, await self._keep_log(collection, number, covers)

    async def _keep_log(self, collection: Collection, number: int, log_from: int) -> list[LogPage]:
        """The shard's log from this position up to the collection's head. Raises TailGone."""
        shard = collection.layout.numbers[number]
        tail = LogTail(collection.id, shard, covers=log_from, head=collection.head, written=collection.written[number])
        pages = list[LogPage]()
        async for entries in pages_of(self._log, tail):
            first, last = position_of(entries[0].id), position_of(entries[-1].id)
            file = await self._archive.keep_page(collection.id, shard, first, last, encode_page(entries))
            pages.append(_page(file, entries))
        return pages


def _page(file: StoredFile, entries: Sequence[Entry]) -> LogPage:
    first_ms, last_ms = (entries[0].time_ms, entries[-1].time_ms) if entries else (0, 0)
    return LogPage(file, sum(entry.count for entry in entries), first_ms, last_ms)


def name_of(moment_s: float) -> str:
    """The name of a backup that is begun at this moment, in seconds since the epoch."""
    moment = datetime.datetime.fromtimestamp(moment_s, datetime.UTC)
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"


def _record(collection: Collection, shards: list[ShardBackup], taken_s: float) -> CollectionBackup:
    return CollectionBackup(
        id=collection.id,
        name=collection.name,
        tenant=collection.tenant,
        database=collection.database,
        metadata=collection.metadata,
        configuration=collection.configuration,
        schema=collection.schema,
        fixed={**collection.fixed, "shards": collection.shards},
        dimension=collection.dimension,
        keys=sorted(collection.keys),
        head=collection.head,
        appended=collection.appended,
        taken_s=taken_s,
        function=collection.function.function if collection.function else None,
        shards=shards,
    )
