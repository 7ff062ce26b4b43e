"""Changes that a Redis gets which went back: what the bucket knows of its catalog beyond it.

A catalog of a later epoch holds all that Redis had when that epoch began, and counts alone. Else slots are compared by
their versions. Where the bucket's is higher, its rows are the later ones: what it does not have was deleted since, what
differs was changed. Where Redis' is higher, changes are in Redis that nobody was told of yet, and its rows stay; a row
that it lacks was deleted. Slots of which nobody has counted the changes (both versions are 0) keep the rows of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import orjson
from redis.asyncio import Redis

from shared.catalog.catalog import Catalog
from shared.catalog.image_model import CatalogImage, CollectionImage, DatabaseImage, TenantImage
from shared.catalog.removal import Removal
from shared.catalog.scripts import CatalogScripts
from shared.log.lifecycle import Lifecycle
from shared.process.telemetry import get_logger
from shared.redis.keys import Keys

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Corrections:
    """Errors in Redis' catalog: rows that were deleted since, as Redis has them, and rows that were changed, as they
    are now. `missing` is the bucket's catalog without what Redis, being ahead, has deleted.
    """

    tenants_gone: list[TenantImage]
    tenants_changed: list[TenantImage]
    databases_gone: list[DatabaseImage]
    collections_gone: list[CollectionImage]
    collections_changed: list[CollectionImage]
    missing: CatalogImage

    @property
    def count(self) -> int:
        """Rows that are deleted or changed."""
        gone = len(self.tenants_gone) + len(self.databases_gone) + len(self.collections_gone)
        return gone + len(self.tenants_changed) + len(self.collections_changed)


def corrections(now: CatalogImage, stored: CatalogImage) -> Corrections:
    """Compares Redis' catalog with the bucket's."""
    ours, theirs, later = _Rows(now), _Rows(stored), stored.epoch > now.epoch
    tenants_behind = later or stored.version > now.version
    databases_behind = {name for name in ours.tenants if later or _later(theirs.tenants.get(name), ours.tenants[name])}
    collections_behind = {key for key in ours.keys if later or _later(theirs.keys.get(key), ours.keys[key])}
    gone = [each for each in now.tenants if tenants_behind and each.name not in theirs.tenants]
    return Corrections(
        tenants_gone=gone,
        tenants_changed=[
            each for each in stored.tenants if tenants_behind and each.name in ours.tenants
            and ours.tenants[each.name].row != each.row
        ],
        databases_gone=[
            each for each in now.databases if each.tenant in databases_behind and each.key not in theirs.keys
        ],
        collections_gone=[
            each for each in now.collections
            if each.database_key in collections_behind and each.id not in theirs.collections
        ],
        collections_changed=[
            each for each in stored.collections
            if each.database_key in collections_behind and each.id in ours.collections
            and ours.collections[each.id].row != each.row
        ],
        missing=stored if later else _without_deleted(now, stored, ours, theirs),
    )  # fmt: skip


class _Rows:
    """An image's rows by their keys."""

    def __init__(self, image: CatalogImage) -> None:
        self.tenants = {tenant.name: tenant for tenant in image.tenants}
        self.keys = {database.key: database for database in image.databases}
        self.collections = {collection.id: collection for collection in image.collections}


def _later(theirs: TenantImage | DatabaseImage | None, ours: TenantImage | DatabaseImage) -> bool:
    return theirs is not None and theirs.version > ours.version


def _without_deleted(now: CatalogImage, stored: CatalogImage, ours: _Rows, theirs: _Rows) -> CatalogImage:
    """The bucket's catalog without the rows that Redis has deleted since."""
    ahead = {name for name, tenant in theirs.tenants.items() if _later(ours.tenants.get(name), tenant)}
    ahead_keys = {key for key, database in theirs.keys.items() if _later(ours.keys.get(key), database)}
    tenants = [each for each in stored.tenants if each.name in ours.tenants or now.version <= stored.version]
    living = {tenant.name for tenant in tenants}
    databases = [
        each
        for each in stored.databases
        if each.tenant in living and (each.key in ours.keys or each.tenant not in ahead)
    ]
    living_keys = {database.key for database in databases}
    collections = [
        each
        for each in stored.collections
        if each.database_key in living_keys
        and (each.id in ours.collections or each.database_key not in ahead_keys)
        and each.id not in now.graves
    ]
    return msgspec.structs.replace(stored, tenants=tenants, databases=databases, collections=collections)


class BringForward:
    """Corrects the catalog of a Redis that went back. Everything raises Unavailable, and may be repeated."""

    def __init__(self, redis: Redis, keys: Keys, catalog: Catalog) -> None:
        self._redis = redis
        self._keys = keys
        self._removal = Removal(redis, keys, catalog.journal)
        self._lifecycle = Lifecycle(redis, keys)

    async def correct(self, now: CatalogImage, stored: CatalogImage, epoch: int) -> CatalogImage:
        """Deletes and changes the rows that the bucket knows later; returns the image of those that are to be there.
        Raises Unavailable, too, where rows were restored in this epoch or a later one.
        """
        found, scripts = corrections(now, stored), CatalogScripts(self._redis, self._keys, epoch)
        for tenant in found.tenants_gone:
            await scripts.tenants("remove", tenant.name)
            await self._removal.clear_tenant(tenant.name)
        for tenant in found.tenants_changed:
            await self._replace_tenant(scripts, tenant)
        for database in found.databases_gone:
            await scripts.databases(database.tenant, "delete", database.name, database.key)
            await self._removal.finish_database(database.key)
        for collection in found.collections_gone:
            await scripts.collections(collection.database_key, "delete", collection.name, collection.id)
            await self._lifecycle.mark_deleted([collection.id])
        for collection in found.collections_changed:
            call = (collection.name, collection.id, collection.row)
            await scripts.collections(collection.database_key, "replace", *call)
            await self._lifecycle.raise_generation(collection.id, collection.generation)
        if found.count:
            log.warning("catalog_brought_forward", rows=found.count)
        return found.missing

    async def _replace_tenant(self, scripts: CatalogScripts, tenant: TenantImage) -> None:
        await scripts.tenants("replace", tenant.name, tenant.row)
        resource = orjson.loads(tenant.row)["resource_name"]
        if resource is not None:
            await scripts.tenants("named", tenant.name, resource)
