"""The whole catalog as one value: what a snapshot in the bucket holds, and what a lost Redis is restored from."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson
from redis.asyncio import Redis

from shared.catalog.catalog import Catalog
from shared.catalog.cluster import Cluster
from shared.catalog.families import Families
from shared.catalog.model import Collection, Database
from shared.catalog.removal import Removal
from shared.catalog.rows import function_of
from shared.catalog.scripts import CatalogScripts
from shared.cluster.placement import Layout
from shared.errors import Corrupt
from shared.log.lifecycle import Lifecycle
from shared.log.rebuild import Rebuilds
from shared.log.state import Pointer
from shared.redis.client import command, retry_idempotent, translated_errors
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX

FORMAT: Final = 1


class TenantImage(msgspec.Struct, frozen=True):
    """A tenant. `row` is the stored JSON."""

    name: str
    row: str


class DatabaseImage(msgspec.Struct, frozen=True):
    """A database of a tenant. `row` is the stored JSON."""

    tenant: str
    name: str
    key: str
    row: str


class CollectionImage(msgspec.Struct, frozen=True):
    """A collection: its row (stored JSON), and what of its state outlives the log. `head` was the next position at that
    time.
    """

    id: str
    database_key: str
    row: str
    fixed: dict[str, Any]
    dimension: int | None
    head: int
    keys: list[tuple[str, str]]
    shards: tuple[int, int]
    """Number of the first shard, and of shards."""

    @property
    def name(self) -> str:
        return str(orjson.loads(self.row)["name"])

    @property
    def layout(self) -> Layout:
        return Layout(*self.shards)


class CatalogImage(msgspec.Struct, frozen=True):
    """The whole catalog, in order of creation. It is read piece by piece while other processes write: each row is as of
    some moment of the reading, and `changes` (the catalog's number of changes) as of its beginning. `taken_s` is the
    time of its end, in seconds since the epoch.
    """

    cluster: str
    epoch: int
    changes: int
    taken_s: float
    tenants: list[TenantImage]
    databases: list[DatabaseImage]
    collections: list[CollectionImage]
    graves: dict[str, float] = {}
    """Deleted collections whose objects are still to be removed, each with the time since when."""
    families: dict[str, list[str]] = {}
    """The forks that each family ever made, by its root."""
    format: int = FORMAT

    def encode(self) -> bytes:
        """The form that a snapshot has, but for its compression."""
        return msgspec.json.encode(self)

    def same_content(self, other: CatalogImage | None) -> bool:
        """Whether both would restore the same."""
        return other is not None and msgspec.structs.replace(other, taken_s=self.taken_s) == self


def decode_image(data: bytes) -> CatalogImage:
    """The image in the bytes that `encode` gave. Raises Corrupt."""
    try:
        image = msgspec.json.decode(data, type=CatalogImage)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"not a snapshot of a catalog: {error}") from error
    if image.format != FORMAT:
        raise Corrupt(f"a catalog snapshot of format {image.format}; this build reads format {FORMAT}")
    return image


def merged(now: CatalogImage, older: CatalogImage | None, heads: Mapping[str, int]) -> CatalogImage:
    """The union of what Redis has now and what only the other image knows. `heads` raises the heads of collections to
    at least these.
    """
    tenants = {tenant.name: tenant for tenant in older.tenants} if older else {}
    databases = {(database.tenant, database.name): database for database in older.databases} if older else {}
    collections = {collection.id: collection for collection in older.collections} if older else {}
    tenants |= {tenant.name: tenant for tenant in now.tenants}
    databases |= {(database.tenant, database.name): database for database in now.databases}
    collections |= {collection.id: collection for collection in now.collections}
    graves = (older.graves if older else {}) | now.graves
    families = {root: set(forks) for root, forks in (older.families if older else {}).items()}
    for root, forks in now.families.items():
        families[root] = families.get(root, set()) | set(forks)
    return msgspec.structs.replace(
        now,
        changes=max(now.changes, older.changes if older else 0),
        tenants=list(tenants.values()),
        databases=list(databases.values()),
        collections=[
            msgspec.structs.replace(collection, head=max(collection.head, heads.get(collection.id, 0)))
            for collection in collections.values()
        ],
        graves={collection_id: since for collection_id, since in graves.items() if collection_id not in collections},
        families={root: sorted(forks) for root, forks in families.items()},
    )


class Images:
    """Takes images of the catalog in Redis, and puts them back. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys, catalog: Catalog) -> None:
        self._redis = redis
        self._keys = keys
        self._catalog = catalog
        self._scripts = CatalogScripts(redis, keys)
        self._lifecycle = Lifecycle(redis, keys)
        self._removal = Removal(redis, keys)
        self._rebuilds = Rebuilds(redis, keys)
        self._families = Families(redis, keys)

    @staticmethod
    def empty(cluster: Cluster, taken_s: float) -> CatalogImage:
        """The image of a cluster's catalog before there is anything in it."""
        return CatalogImage(cluster.id, cluster.epoch, 0, taken_s, [], [], [])

    async def take(self, cluster: Cluster) -> CatalogImage:
        """The catalog of this cluster. Raises Unavailable when Redis was lost on the way, even if it is restored by
        now: an image of half a catalog must never become a snapshot.
        """
        changes = await self._catalog.changes.number()
        tenants = [TenantImage(name, row) for name, row in sorted((await self._rows(self._keys.tenants)).items())]
        databases: list[DatabaseImage] = []
        collections: list[CollectionImage] = []
        for tenant in tenants:
            rows = await self._rows(self._keys.databases(tenant.name))
            for database in await self._catalog.databases.of_tenant(tenant.name):
                if database.name in rows:
                    databases.append(DatabaseImage(tenant.name, database.name, database.key, rows[database.name]))
                    collections += [image async for image in self._collections(database)]
        graves = await self._removal.graves()
        families = await self._families.every()
        await self._catalog.mark.require_same(cluster)
        return CatalogImage(
            cluster.id, cluster.epoch, changes, time.time(), tenants, databases, collections, graves, families
        )

    async def _rows(self, key: str) -> dict[str, str]:
        with translated_errors():
            rows: Mapping[bytes, bytes] = await command(self._redis, "HGETALL", key)
        return {name.decode(): row.decode() for name, row in rows.items()}

    async def _collections(self, database: Database) -> AsyncIterator[CollectionImage]:
        with translated_errors():
            ids = await command(self._redis, "ZRANGE", self._keys.order(database.key), 0, -1)
        for start in range(0, len(ids), PIPELINE_MAX):
            some = [collection_id.decode() for collection_id in ids[start : start + PIPELINE_MAX]]
            with translated_errors():
                rows = await command(self._redis, "HMGET", self._keys.rows(database.key), *some)
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for collection_id in some:
                        pipeline.hmget(self._keys.state(collection_id), ["head", "dim", "config", "layout"])
                        pipeline.smembers(self._keys.metadata_keys(collection_id))
                    answers = await pipeline.execute()
            for collection_id, row, state, keys in zip(some, rows, answers[0::2], answers[1::2], strict=True):
                if row is not None and state[0] is not None:
                    yield _collection_image(collection_id, database.key, row, state, keys)

    async def restore_rows(self, image: CatalogImage) -> None:
        """Puts back every row of a tenant, a database or a collection that is missing. The collections' states have to
        be there before (`restore_state`).
        """
        for tenant in image.tenants:
            await self._scripts.tenants("create", tenant.name, tenant.row)
            resource = orjson.loads(tenant.row)["resource_name"]
            if resource is not None:
                call = ("HSET", self._keys.resources, resource, tenant.name)
                await retry_idempotent(lambda call=call: command(self._redis, *call), writes=True)  # type: ignore[misc] # no type for a lambda with a default
        for database in image.databases:
            await self._scripts.databases(database.tenant, "create", database.name, database.row)
        for collection in image.collections:
            await self._scripts.collections(
                collection.database_key, "create", collection.name, collection.id, collection.row
            )
            function = function_of(collection.row.encode())
            for input_id in function.inputs if function else ():
                await self._scripts.collections(collection.database_key, "feed", input_id, collection.id)
        living = {collection.id for collection in image.collections}
        await self._removal.bury(
            {collection_id: since for collection_id, since in image.graves.items() if collection_id not in living}
        )
        await self._families.restore(image.families)
        await retry_idempotent(lambda: command(self._redis, "SET", self._keys.changes, image.changes), writes=True)

    async def restore_state(
        self, collection: CollectionImage, head: int, epoch: int, pointers: Sequence[Pointer | None]
    ) -> int:
        """Puts a collection's state back, or raises the head and the epoch of a state that is there; returns the head.
        `pointers` are those of the shards of its layout.
        """
        restored = await self._lifecycle.restore(
            collection.id,
            head,
            epoch,
            database_key=collection.database_key,
            fixed=collection.fixed,
            generation=orjson.loads(collection.row)["generation"],
            dimension=collection.dimension,
            layout=collection.layout,
            pointers=pointers,
        )
        if collection.keys:
            members = [orjson.dumps(pair) for pair in collection.keys]
            call = ("SADD", self._keys.metadata_keys(collection.id), *members)
            await retry_idempotent(lambda: command(self._redis, *call), writes=True)
        return restored

    async def abandon_rebuild(self, collection: Collection) -> None:
        """Forgets the layout that the collection is getting. Raises Gone."""
        if collection.rebuild:
            await self._rebuilds.abandon(collection.id, collection.layout, collection.rebuild.layout)

    async def force_layout(self, collection: Collection, layout: Layout, pointers: Sequence[Pointer | None]) -> None:
        """Gives the collection a layout that it had when Redis went back. Raises Gone."""
        await self._rebuilds.force(collection.id, collection.layout, layout, pointers)

    async def raise_heads(self, heads: Mapping[str, int], epoch: int = 0) -> None:
        """Raises the heads and the epochs of those collections that are there."""
        await self._lifecycle.raise_heads(heads, epoch)

    async def write_report(self, report: Mapping[str, Any]) -> None:
        """Keeps what the last reconciliation found, for operators to read."""
        await self._catalog.mark.write_report(orjson.dumps(report))

    async def read_report(self) -> dict[str, Any] | None:
        """The report that `write_report` kept last; None before that."""
        stored = await self._catalog.mark.read_report()
        return None if stored is None else dict(orjson.loads(stored))


def _collection_image(
    collection_id: str, database_key: str, row: bytes, state: Sequence[bytes | None], keys: set[bytes]
) -> CollectionImage:
    head, dimension, config, encoded = state
    layout = Layout.decode(encoded or b"0 1")
    pairs: list[tuple[str, str]] = sorted((pair[0], pair[1]) for pair in map(orjson.loads, keys))
    return CollectionImage(
        id=collection_id,
        database_key=database_key,
        row=row.decode(),
        fixed=orjson.loads(config or b"{}"),
        dimension=None if dimension is None else int(dimension),
        head=int(head or 0),
        keys=pairs,
        shards=(layout.first, layout.count),
    )
