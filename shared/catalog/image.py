"""The whole catalog as one value: what a snapshot in the bucket holds, and what a lost Redis is restored from."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from shared.catalog.bring_forward import BringForward
from shared.catalog.catalog import Catalog
from shared.catalog.cluster import Cluster
from shared.catalog.damage import Damages
from shared.catalog.families import Families
from shared.catalog.garbled_rows import NOBODY_HAS
from shared.catalog.image_model import (
    CatalogImage,
    CollectionImage,
    DatabaseImage,
    TenantImage,
    collection_image,
    decode_image,
    lost_keys,
    merged,
)
from shared.catalog.losses import Losses
from shared.catalog.model import Collection, Database
from shared.catalog.pending import PendingChanges
from shared.catalog.readable import can_be_read
from shared.catalog.reading import text_of
from shared.catalog.removal import Removal
from shared.catalog.row_names import row_name
from shared.catalog.rows import function_of
from shared.catalog.scripts import TENANTS_NOTE, CatalogScripts
from shared.catalog.slots import TENANTS, Slot
from shared.cluster.placement import Layout
from shared.errors import Corrupt, Garbled, Unavailable
from shared.log.forks import Forks
from shared.log.lifecycle import Lifecycle, Rejoined
from shared.log.naming import state_name
from shared.log.pairs import split_pairs
from shared.log.rebuild import Rebuilds
from shared.log.required import UNREADABLE, checked_fields, is_whole
from shared.log.state import FIRST_ID, Entry, Pointer
from shared.log.tails import pages
from shared.process.telemetry import get_logger
from shared.redis.client import command, retry_idempotent, translated_errors
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX

__all__ = [
    "CatalogImage",
    "CollectionImage",
    "DatabaseImage",
    "Images",
    "TenantImage",
    "decode_image",
    "lost_keys",
    "merged",
]


log = get_logger(__name__)

IMAGED: Final = ("head", "dim", "config", "layout")
"""The fields of a state that an image has."""


class Images:
    """Takes images of the catalog in Redis, and puts them back. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys, catalog: Catalog) -> None:
        self._redis = redis
        self._keys = keys
        self._catalog = catalog
        self._scripts = CatalogScripts(redis, keys)
        self._lifecycle = Lifecycle(redis, keys)
        self._removal = Removal(redis, keys, catalog.journal)
        self._rebuilds = Rebuilds(redis, keys)
        self._forks = Forks(redis, keys)
        self._families = Families(redis, keys)
        self._pending = PendingChanges(redis, keys)
        self._forward = BringForward(redis, keys, catalog)
        self.losses = Losses(redis, keys)

    @property
    def damages(self) -> Damages:
        """The registry of damage of the same cluster."""
        return self._catalog.damages

    @staticmethod
    def empty(cluster: Cluster, taken_s: float) -> CatalogImage:
        """The image of a cluster's catalog before there is anything in it."""
        return CatalogImage(cluster.id, cluster.epoch, 0, taken_s, [], [], [])

    async def take(self, cluster: Cluster, lost: set[str] | None = None) -> CatalogImage:
        """The catalog of this cluster. Raises Unavailable when Redis was lost on the way, even if it is restored by
        now: an image of half a catalog must never become a snapshot. So it is raised, too, when a row or a state was
        lost alone, unless `lost` is given: then the ids of these collections, which the image lacks, are added to it;
        and when a row cannot be read, unless the bucket was found to know nothing of it: the image lacks that.
        Raises Corrupt when what a snapshot has of a state cannot be read.
        """
        missing: list[tuple[str, str]] = []
        changes = await self._catalog.changes.number()
        version = await self._version(self._keys.catalog_version)
        tenants: list[TenantImage] = []
        databases: list[DatabaseImage] = []
        collections: list[CollectionImage] = []
        waiting: set[str] = set()
        for name, tenant_row in sorted((await self._rows(TENANTS)).items()):
            tenants.append(TenantImage(name, tenant_row, await self._version(self._keys.tenant_version(name))))
            rows = await self._rows(Slot(tenant=name))
            for database in await self._catalog.databases.of_tenant(name, damaged=set()):
                if database.name in rows:
                    version_then = await self._version(self._keys.database_version(database.key))
                    row = rows[database.name]
                    databases.append(DatabaseImage(name, database.name, database.key, row, version_then))
                    collections += [image async for image in self._collections(database, missing)]
                    await self.losses.require_whole(database.key)
                    waiting |= await self._removal.waiting_in(database.key)
            waiting |= await self._removal.waiting(name)
        graves = dict.fromkeys(waiting, time.time()) | await self._removal.graves()
        families = await self._families.every()
        await self._require_found(missing, lost)
        await self._catalog.mark.require_same(cluster)
        return CatalogImage(
            cluster.id,
            cluster.epoch,
            changes,
            time.time(),
            tenants,
            databases,
            collections,
            graves,
            families,
            version=version,
        )

    async def _version(self, key: str) -> int:
        """The version of a slot. It is asked for before the slot's rows: they may be of a later one."""
        version = await retry_idempotent(lambda: command(self._redis, "GET", key), writes=False) or b"0"
        if not version.isdigit():
            await self.losses.note(TENANTS_NOTE)
            raise Unavailable("The version of a slot of the catalog was lost and is being restored")
        return int(version)

    async def _rows(self, slot: Slot) -> dict[str, str]:
        key = slot.keys(self._keys)[0]
        with translated_errors():
            rows: Mapping[bytes, bytes] = await command(self._redis, "HGETALL", key)
        found: dict[str, str] = {}
        for name, row in rows.items():
            if text_of(name).encode() == name and can_be_read(slot, row):
                found[name.decode()] = row.decode()
            else:
                await self._require_unknown(slot, text_of(name))
        return found

    async def _require_unknown(self, slot: Slot, row: str) -> None:
        """Raises Garbled, and has the log service look, unless the bucket was found to know nothing of this row."""
        name = row_name(slot, row)
        if not any(each.name == name and each.doing == NOBODY_HAS for each in await self.damages.all()):
            await self.losses.note(slot.database or TENANTS_NOTE)
            raise Garbled("a row cannot be read", name)

    async def _require_found(self, missing: Sequence[tuple[str, str]], lost: set[str] | None) -> None:
        """Raises Unavailable, or adds to `lost`, where a collection that was missed has lost its row or its state, or
        had when it was read: it may have come back since.
        """
        for database_key, collection_id in missing:
            if lost is None:
                await self.losses.require_state(database_key, collection_id)
            if not await self.losses.has_living_row(database_key, collection_id):
                continue
            if lost is None:
                raise Unavailable(f"The state of collection {collection_id} was restored meanwhile")
            lost.add(collection_id)

    async def _collections(self, database: Database, missing: list[tuple[str, str]]) -> AsyncIterator[CollectionImage]:
        """The collections of the database; those without a row or a whole state go to `missing`."""
        slot = Slot(database=database.key)
        with translated_errors():
            ids = await command(self._redis, "ZRANGE", self._keys.order(database.key), 0, -1)
        for start in range(0, len(ids), PIPELINE_MAX):
            some = [text_of(collection_id) for collection_id in ids[start : start + PIPELINE_MAX]]
            with translated_errors():
                rows = await command(self._redis, "HMGET", self._keys.rows(database.key), *some)
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for collection_id in some:
                        pipeline.hmget(self._keys.state(collection_id), [*checked_fields(), "deleted"])
                        pipeline.smembers(self._keys.metadata_keys(collection_id))
                    answers = await pipeline.execute()
            for collection_id, row, state, keys in zip(some, rows, answers[0::2], answers[1::2], strict=True):
                checked, deleted = dict(zip(checked_fields(), state, strict=False)), state[-1]
                if row is not None and not can_be_read(slot, row):
                    await self._require_unknown(slot, collection_id)
                    continue
                await self._drop_garbled(collection_id, keys)
                if row is not None and is_whole(checked, database.key):
                    try:
                        yield collection_image(
                            collection_id, database.key, row, [checked[name] for name in IMAGED], keys
                        )
                    except UNREADABLE as error:
                        raise Corrupt(f"the state cannot be read: {error!r}", state_name(collection_id)) from error
                elif deleted is None:
                    missing.append((database.key, collection_id))

    async def _drop_garbled(self, collection_id: str, keys: Iterable[bytes]) -> None:
        """Removes what cannot be read of these metadata keys of a collection: snapshots put lost ones back."""
        _, garbled = split_pairs(keys)
        if garbled:
            log.error(
                "metadata_keys_unreadable", collection=collection_id, values=[repr(each[:60]) for each in garbled]
            )
            call = ("SREM", self._keys.metadata_keys(collection_id), *garbled)
            await retry_idempotent(lambda: command(self._redis, *call), writes=True)

    async def restore_rows(self, image: CatalogImage, epoch: int) -> None:
        """Puts back every row of a tenant, a database or a collection that is missing. The collections' states have to
        be there before (`restore_state`), and all of it in the snapshot of this epoch: nothing is pending for the
        journal afterwards. Raises Unavailable when another log service has restored them since: what it restored may
        have been changed, and is left as it is.
        """
        scripts = CatalogScripts(self._redis, self._keys, epoch)
        for tenant in image.tenants:
            await scripts.tenants("create", tenant.name, tenant.row)
            resource = orjson.loads(tenant.row)["resource_name"]
            if resource is not None:
                await scripts.tenants("named", tenant.name, resource)
        for database in image.databases:
            await scripts.databases(database.tenant, "create", database.name, database.row)
        for collection in image.collections:
            await scripts.collections(collection.database_key, "create", collection.name, collection.id, collection.row)
            function = function_of(collection.id, collection.row)
            for input_id in function.inputs if function else ():
                await scripts.collections(collection.database_key, "feed", input_id, collection.id)
        living = {collection.id for collection in image.collections}
        await self._removal.bury(
            {collection_id: since for collection_id, since in image.graves.items() if collection_id not in living}
        )
        await self._families.restore(image.families)
        versions = [(TENANTS, image.version)]
        versions += [(Slot(tenant=tenant.name), tenant.version) for tenant in image.tenants]
        versions += [(Slot(database=database.key), database.version) for database in image.databases]
        await self._pending.restore(versions, epoch)
        # Never back: a snapshot seems to contain an entry of the journal whose number is not beyond its own.
        await self._scripts.tenants("counted", image.changes)

    async def restore_state(
        self,
        collection: CollectionImage,
        head: int,
        epoch: int,
        position: int,
        pointers: Sequence[Pointer | None],
        *,
        is_complete: bool = True,
    ) -> int:
        """Puts a collection's state back, or raises the head and the epoch of a state that is there; returns the head.
        `pointers` are those of the shards of its layout, manifests of one moment, at `position`. One that is not yet
        `is_complete` counts as lost for everybody, until `fill_state` completes it.
        """
        restored = await self._lifecycle.restore(
            collection.id,
            head,
            epoch,
            position,
            database_key=collection.database_key,
            fixed=collection.fixed,
            generation=collection.generation if is_complete else None,
            dimension=collection.dimension,
            layout=collection.layout,
            pointers=pointers,
        )
        await self.add_keys(collection.id, collection.keys)
        return restored

    async def rejoin_state(self, collection: CollectionImage) -> Rejoined:
        """Gives a state that lost fields back what its streams say."""
        return await self._lifecycle.rejoin(collection.id, collection.layout)

    async def rejoin_streams(self, collection: Collection) -> list[str]:
        """Gives a whole state back what it lost of what its streams say; the fields that were missing."""
        return (await self._lifecycle.rejoin(collection.id, collection.layout)).filled

    async def rejoin_all(self, image: CatalogImage) -> dict[str, list[str]]:
        """Gives the states of all collections of the image back what they lost of what their streams say: the fields
        that were missing, by collection.
        """
        return await self._lifecycle.rejoin_many({each.id: each.layout for each in image.collections})

    async def fill_state(
        self,
        collection: CollectionImage,
        head: int,
        epoch: int,
        pointers: Sequence[Pointer | None],
        *,
        is_open: bool = False,
    ) -> int:
        """Gives a state that lost fields those of the image in their place; returns the head. Its log goes on. While
        the cluster `is_open` in this epoch, raises Unavailable for a state that was restored in a later one.
        """
        filled = await self._lifecycle.fill(
            collection.id,
            head,
            epoch,
            database_key=collection.database_key,
            fixed=collection.fixed,
            generation=collection.generation,
            dimension=collection.dimension,
            layout=collection.layout,
            pointers=pointers,
            is_open=is_open,
        )
        await self.add_keys(collection.id, collection.keys)
        return filled

    async def logged_dimension(self, collection: CollectionImage) -> int | None:
        """The width of the embeddings in the collection's log; None when there are none."""
        return await self._lifecycle.logged_dimension(collection.id, collection.layout)

    async def drop_unreadable(self, collection: CollectionImage) -> dict[str, bytes]:
        """Removes the fields of the collection's state that cannot be read; returns them with their values."""
        return await self._lifecycle.drop_unreadable(collection.id, collection.database_key)

    async def drop_unreadable_of_shards(self, collection_id: str) -> dict[str, bytes]:
        """Removes the fields of the state's shards that cannot be read and can be made again; returns them with their
        values.
        """
        return await self._lifecycle.drop_unreadable_of_shards(collection_id)

    async def clear_state(self, collection_id: str) -> None:
        """Removes what is left of a state, before it is restored from the bucket alone."""
        await self._lifecycle.clear(collection_id)

    async def add_keys(self, collection_id: str, pairs: Sequence[tuple[str, str]]) -> None:
        """Puts (metadata key, value type) pairs back."""
        if pairs:
            call = ("SADD", self._keys.metadata_keys(collection_id), *[orjson.dumps(pair) for pair in pairs])
            await retry_idempotent(lambda: command(self._redis, *call), writes=True)

    async def abandon_rebuild(self, collection: Collection) -> None:
        """Forgets the layout that the collection is getting. Raises Gone."""
        if collection.rebuild:
            await self._rebuilds.abandon(collection.id, collection.layout, collection.rebuild.layout)

    async def replace_log(
        self,
        collection_id: str,
        layout: Layout,
        epoch: int,
        position: int,
        pointers: Sequence[Pointer | None],
        dimension: int | None,
    ) -> None:
        """Gives a collection in this epoch manifests of one moment, at `position`, in the place of all that Redis has
        of its log. `pointers` are those of the shards of `layout`, which is its layout from now on; `dimension` is that
        of their vectors, None where they do not say any. Raises Gone.
        """
        await self._rebuilds.restore(collection_id, layout, epoch, position, pointers, dimension)

    async def put_back(self, collection_id: str, epoch: int, entries: Mapping[int, Sequence[Entry]]) -> None:
        """Puts entries, by shard, into streams of the collection that have none yet. Raises Gone."""
        for shard, of_shard in entries.items():
            last = FIRST_ID
            for page in pages(of_shard):
                if not await self._forks.copy(collection_id, epoch, shard, page, last):
                    raise Unavailable("Another log service is restoring the log")
                last = page[-1].id

    async def raise_heads(self, heads: Mapping[str, int], epoch: int = 0) -> None:
        """Raises the heads and the epochs of those collections that are there."""
        await self._lifecycle.raise_heads(heads, epoch)

    async def bring_forward(self, now: CatalogImage, stored: CatalogImage, epoch: int) -> CatalogImage:
        """Deletes and changes the rows that the bucket (`stored`) knows later than Redis, whose catalog is `now`;
        returns the image of those that are to be there, for `restore_rows`. `epoch` is the one that is to begin.
        Raises Unavailable, as `restore_rows` does.
        """
        return await self._forward.correct(now, stored, epoch)

    async def write_report(self, report: Mapping[str, Any], token: str) -> None:
        """Keeps what the restoration with this token found, for operators to read."""
        await self._catalog.mark.write_report(orjson.dumps(report), token)

    async def amend_report(self, amend: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Keeps what `amend` makes of the report, an empty one before the first. Raises Unavailable when another
        process has changed it in this moment.
        """
        before = await self._catalog.mark.read_report()
        amended = amend(_report_of(before) or {})
        await self._catalog.mark.amend_report(orjson.dumps(amended), before)

    async def read_report(self) -> dict[str, Any] | None:
        """The report that `write_report` kept last; None before that."""
        return _report_of(await self._catalog.mark.read_report())


def _report_of(stored: bytes | None) -> dict[str, Any] | None:
    """The report as it is kept; one that cannot be read is named in the log, and counts as none."""
    try:
        return None if stored is None else dict(orjson.loads(stored))
    except (ValueError, TypeError) as error:
        log.error("report_unreadable", value=repr(stored[:200] if stored else stored), message=str(error))  # noqa: TRY400 (no stack: data is at fault)
        return None
