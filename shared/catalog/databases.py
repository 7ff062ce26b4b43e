"""Databases: rows in one hash of each tenant. The row decides whether a database exists."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import orjson
from redis.asyncio import Redis

from shared.catalog.journal import Journal, after_commit
from shared.catalog.losses import Losses
from shared.catalog.model import Database
from shared.catalog.quotas import DEFAULT_QUOTAS, CatalogQuotas, quota_exceeded
from shared.catalog.readable import database_row
from shared.catalog.reading import CatalogReader, repeated
from shared.catalog.removal import Removal
from shared.catalog.scripts import TENANTS_NOTE, CatalogScripts
from shared.catalog.slots import Slot, path_of_tenant
from shared.catalog.tenants import Tenants
from shared.errors import AlreadyExists, Garbled, NotFound
from shared.redis.keys import Keys


class Databases:
    """The databases of all tenants, each of which has as many of them at most as `quotas` say. Everything raises
    Unavailable while Redis is away or not restored.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        tenants: Tenants,
        journal: Journal,
        quotas: CatalogQuotas = DEFAULT_QUOTAS,
    ) -> None:
        self._quotas = quotas
        self._redis = redis
        self._journal = journal
        self._keys = keys
        self._tenants = tenants
        self._reader = CatalogReader(redis, keys)
        self._scripts = CatalogScripts(redis, keys)
        self._removal = Removal(redis, keys, journal)
        self._losses = Losses(redis, keys)

    async def create(self, tenant: str, name: str, database_id: str | None = None) -> Database:
        """The new database; its id is drawn unless one is given. Raises AlreadyExists, QuotaExceeded, and NotFound when
        there is no such tenant.
        """
        if await self._tenants.get(tenant) is None:
            raise NotFound(f"Tenant [{tenant}] not found")
        await self._losses.require_databases(tenant)  # the name may be that of a lost one
        database = Database(database_id or str(uuid.uuid4()), uuid.uuid4().hex, name, tenant)
        row = orjson.dumps({"id": database.id, "key": database.key})
        most = self._quotas.databases_of(tenant)
        async with self._journal.change(path_of_tenant(tenant)):
            match await self._scripts.databases(tenant, "add", name, row, most):
                case b"EXISTS":
                    raise AlreadyExists(f"Database [{name}] already exists")
                case b"FULL":
                    raise quota_exceeded("Number of databases", "Create database", most, most)
        return database

    async def get(self, tenant: str, name: str) -> Database | None:
        """None when the tenant has none of this name, or is not there."""

        async def read() -> list[Any]:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hexists(self._keys.tenants, tenant)
                pipeline.hget(self._keys.databases(tenant), name)
                replies: list[Any] = await pipeline.execute()
                return replies

        known, row = await repeated(read)
        # A tenant that a reset has removed has no databases, even before they are cleared.
        if not known or row is None:
            await self._reader.require_cluster()
            if not known:
                await self._losses.require_tenant(tenant)
                return None
            await self._losses.require_databases(tenant)
            await self._losses.require_rows(Slot(tenant=tenant), [name])
            return None
        return (await self._readable(tenant, {name: row}, None))[0]

    async def of_tenant(
        self, tenant: str, limit: int | None = None, offset: int = 0, damaged: set[str] | None = None
    ) -> list[Database]:
        """In order of creation, `limit` of them at most (None: all), without the first `offset`; none for an unknown
        tenant. Raises Garbled when the row of one cannot be read, unless `damaged` is given: then it is left out, and
        its name is there.
        """
        if limit == 0 or await self._tenants.get(tenant) is None:
            return []
        names = await self._reader.members_in_order(self._keys.database_order(tenant), limit, offset)
        rows = dict(zip(names, await self._reader.values(self._keys.databases(tenant), names), strict=True))
        if damaged is None:
            await self._losses.require_rows(Slot(tenant=tenant), [name for name, row in rows.items() if row is None])
        return await self._readable(tenant, rows, damaged)

    async def _readable(
        self, tenant: str, rows: Mapping[str, bytes | None], damaged: set[str] | None
    ) -> list[Database]:
        """The databases with these rows; None for one that is not there. `damaged` as for `of_tenant`."""
        found: list[Database] = []
        for name, row in rows.items():
            if row is None:
                continue
            try:
                fields = database_row(tenant, name, row)
            except Garbled:
                await self._losses.note(TENANTS_NOTE)
                if damaged is None:
                    raise
                damaged.add(name)
            else:
                found.append(Database(fields["id"], fields["key"], name, tenant))
        return found

    async def some(self, tenant: str, names: Iterable[str]) -> list[Database]:
        """Those databases of the tenant that have one of these names, in order of creation."""
        if await self._tenants.get(tenant) is None:
            return []
        found = await self._reader.some_in_order(self._keys.database_order(tenant), frozenset(names))
        rows = await self._reader.values(self._keys.databases(tenant), found)
        return await self._readable(tenant, dict(zip(found, rows, strict=True)), None)

    async def all(self, damaged: set[str] | None = None) -> AsyncIterator[Database]:
        """Every database of every tenant; each tenant's in order of creation. Raises Garbled when the row of a tenant
        or a database cannot be read, unless `damaged` is given: then it is left out, and its name is there.
        """
        for tenant in await self._tenants.all(damaged):
            try:
                databases = await self.of_tenant(tenant.name, damaged=damaged)
            except Garbled as error:  # its row was whole a moment ago
                if damaged is None:
                    raise
                damaged.add(error.name)
                continue
            for database in databases:
                yield database

    async def delete(self, tenant: str, name: str) -> bool:
        """Deletes the database with its collections. False when there is none."""
        async with self._journal.change(path_of_tenant(tenant)):
            database = await self.get(tenant, name)
            if database is None:
                return False
            await self._scripts.databases(tenant, "delete", name, database.key)
            with after_commit():
                await self._removal.finish_database(database.key)
            return True
