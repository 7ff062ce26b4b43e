"""Restoring collections from a backup, into a cluster that runs: an empty one, or one with other collections.

Each becomes a new collection, in the order of a fork (docs/design/2026-11-21-fork.md): the files under the prefix of
its id, its manifests, its state and its log, and last its row, which makes it one. A restoration that dies before that
leaves an orphan, which is collected; it is begun again.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from polychrome.backup.archive import Archive
from polychrome.backup.model import FILES, Backup, CollectionBackup, ManifestBackup, StoredFile
from polychrome.backup.moment import CollectionMoment, ShardLog, moment_of
from shared.catalog import Catalog, Cluster, Database, NewCollection
from shared.catalog.removal import Removal
from shared.catalog.rows import FIRST_GENERATION
from shared.errors import AlreadyExists, Corrupt, PolychromeError, Unavailable
from shared.log.forks import Forks
from shared.log.jobs import Jobs
from shared.log.lifecycle import Lifecycle
from shared.log.state import FIRST_ID, Pointer
from shared.manifest.model import Manifest, decode
from shared.manifest.store import ManifestStore
from shared.objects.keys import segment_path
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.records.model import FIRST_POSITION

FILES_AT_ONCE: Final = 4
WRITTEN_BY: Final = "restore"


class Restorer:
    """Puts collections of a backup back."""

    def __init__(
        self,
        catalog: Catalog,
        lifecycle: Lifecycle,
        forks: Forks,
        removal: Removal,
        jobs: Jobs,
        objects: ObjectStore,
        archive: Archive,
        clock: Clock,
        cluster: Cluster,
    ) -> None:
        self._catalog = catalog
        self._lifecycle = lifecycle
        self._forks = forks
        self._removal = removal
        self._jobs = jobs
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._archive = archive
        self._clock = clock
        self._cluster = cluster

    async def restore(self, backup: Backup, names: Mapping[str, str], at_s: float | None = None) -> dict[str, str]:
        """Restores those collections of the backup whose id is in `names`, each under that name, as of the time `at_s`
        (None: as they are in the backup); with the tenants and databases that they need. Returns the id that each got,
        by the one that it had. Raises AlreadyExists, before anything was done, when a name is taken; InvalidArgument
        when one of them cannot be had as of that time.
        """
        wanted = [collection for collection in backup.collections if collection.id in names]
        await self._refuse_taken(wanted, names)
        moments = [await moment_of(self._archive, collection, at_s) for collection in wanted]
        databases = await self._make_databases(backup, wanted)
        ids = dict[str, str]()
        for collection, moment in zip(wanted, moments, strict=True):
            database = databases[collection.tenant, collection.database]
            new_id = await self._id_for(backup, collection)
            ids[collection.id] = new_id
            try:
                await self._fill(database, collection, new_id, names[collection.id], moment)
            except PolychromeError:
                # Its objects go as those of a deleted collection do.
                await self._removal.bury({new_id: time.time()})
                await self._lifecycle.collect(new_id)
                raise
        return ids

    async def _id_for(self, backup: Backup, collection: CollectionBackup) -> str:
        """The id that the collection gets: its own, which clients may know, in a cluster that never had it. An id that
        this cluster has had is never used again.
        """
        foreign = backup.cluster != self._cluster.id
        if (
            foreign
            and not await self._lifecycle.exists(collection.id)
            and not await self._removal.is_buried(collection.id)
        ):
            return collection.id
        return str(uuid.uuid4())

    async def _refuse_taken(self, wanted: Sequence[CollectionBackup], names: Mapping[str, str]) -> None:
        for collection in wanted:
            database = await self._catalog.databases.get(collection.tenant, collection.database)
            name = names[collection.id]
            if database is not None and await self._catalog.collections.get(database, name) is not None:
                raise AlreadyExists(
                    f"Collection [{collection.tenant}/{collection.database}/{name}] already exists: delete it, or "
                    "restore under another name (--collection C --as NAME)"
                )

    async def _make_databases(
        self, backup: Backup, wanted: Sequence[CollectionBackup]
    ) -> dict[tuple[str, str], Database]:
        """The databases of these collections, which are there on return; of a whole backup, all of its databases."""
        whole = len(wanted) == len(backup.collections)
        needed = {(collection.tenant, collection.database) for collection in wanted}
        for tenant in backup.tenants:
            if not whole and all(tenant.name != owner for owner, _ in needed):
                continue
            if await self._catalog.tenants.get(tenant.name) is None:
                await self._catalog.tenants.create(tenant.name)
            if tenant.resource_name is not None:
                await self._catalog.tenants.set_resource_name(tenant.name, tenant.resource_name)
        databases = dict[tuple[str, str], Database]()
        for each in backup.databases:
            if whole or (each.tenant, each.name) in needed:
                found = await self._catalog.databases.get(each.tenant, each.name)
                databases[each.tenant, each.name] = found or await self._catalog.databases.create(
                    each.tenant, each.name, each.id
                )
        return databases

    async def _fill(
        self, database: Database, wanted: CollectionBackup, new_id: str, name: str, moment: CollectionMoment
    ) -> None:
        pointers = [
            await self._restore_manifest(manifest, new_id, number) for number, manifest in enumerate(moment.manifests)
        ]
        # From here on it is quick, or the collector of orphans would take it.
        fixed = {**wanted.fixed, "shards": len(wanted.shards)}
        await self._lifecycle.create(new_id, database.key, fixed, FIRST_GENERATION, epoch=self._cluster.epoch)
        logged = 0
        for number, (shard, pointer) in enumerate(zip(wanted.shards, pointers, strict=True)):
            start = pointer.covers if pointer else FIRST_POSITION
            logged += await self._restore_log(ShardLog(self._archive, shard), new_id, number, start, moment.head)
        await self._forks.open(
            new_id,
            self._cluster.epoch,
            head=moment.head,
            dimension=wanted.dimension,
            pointers=pointers,
            ops_before=max(0, min(wanted.appended, moment.head - FIRST_POSITION) - logged),
            pairs=wanted.keys,
        )
        new = NewCollection(name, wanted.metadata, wanted.configuration, wanted.schema, fixed)
        await self._catalog.collections.adopt(database, new_id, new)
        await self._jobs.mark_dirty((new_id, number) for number in range(len(wanted.shards)))

    async def _restore_manifest(self, wanted: ManifestBackup | None, new_id: str, number: int) -> Pointer | None:
        """Puts the segments of a shard into the bucket, and the manifest that names them; the manifest's pointer."""
        if wanted is None:
            return None
        theirs = decode(await self._archive.fetch_bytes(wanted.file))
        files = {file.key: file for file in wanted.segments}
        moved = list[tuple[StoredFile, str]]()
        segments = []
        for ref in theirs.segments:
            path = segment_path(new_id, number, ref.info.id)
            segments.append(msgspec.structs.replace(ref, info=msgspec.structs.replace(ref.info, path=path)))
            for file in ref.info.files:
                source = files.get(f"{FILES}{ref.info.path}/{file.name}")
                if source is None or (source.bytes, source.checksum) != (file.bytes, file.checksum):
                    raise Corrupt(f"the backup lacks {ref.info.path}/{file.name}")
                moved.append((source, f"{path}/{file.name}"))
        await map_concurrently(self._move, moved, at_once=FILES_AT_ONCE)
        created = await self._manifests.create(
            Manifest(
                collection=new_id, shard=number, version=1, parent=None, covers=theirs.covers,
                dimension=theirs.dimension, segments=segments, rows=theirs.rows, digest=theirs.digest,
                written_by=f"{WRITTEN_BY} {uuid.uuid4().hex}", created_s=self._clock.now(), epoch=self._cluster.epoch,
            )
        )  # fmt: skip
        if created is None:
            raise Unavailable(f"{new_id}/{number} has a manifest already")
        return created

    async def _move(self, each: tuple[StoredFile, str]) -> None:
        source, key = each
        with tempfile.TemporaryDirectory(prefix="polychrome-restore-") as folder:
            path = Path(folder, "object")
            await self._archive.fetch(source, path)
            await self._objects.put(key, path)

    async def _restore_log(self, log: ShardLog, new_id: str, number: int, start: int, head: int) -> int:
        """Copies the shard's log between two positions; returns the number of operations."""
        last, operations = FIRST_ID, 0
        async for entries in log.pages(start, head):
            if not await self._forks.copy(new_id, self._cluster.epoch, number, entries, last):
                raise Unavailable(f"another process is restoring {new_id}")
            last, operations = entries[-1].id, operations + sum(entry.count for entry in entries)
        return operations
