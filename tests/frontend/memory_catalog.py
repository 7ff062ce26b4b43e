"""The catalog's interface over plain dictionaries, for tests that need no Redis."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace
from typing import Any

from shared.catalog import Collection, Database, NewCollection, Tenant
from shared.cluster.placement import Layout
from shared.errors import AlreadyExists, NotFound, Unavailable

_KEEP: Any = object()


class MemoryCatalog:
    """While it is `away`, it behaves as if Redis did not answer."""

    def __init__(self) -> None:
        self.away = False
        self.tenants = MemoryTenants(self)
        self.databases = MemoryDatabases(self)
        self.collections = MemoryCollections(self)

    def check(self) -> None:
        if self.away:
            raise Unavailable("Redis is away")

    async def bootstrap(self) -> None:
        self.check()

    async def reset(self) -> None:
        self.check()
        for part in (self.tenants, self.databases, self.collections):
            part.fill()


class MemoryTenants:
    def __init__(self, catalog: MemoryCatalog) -> None:
        self._catalog = catalog
        self.fill()

    def fill(self) -> None:
        self.rows = {"default_tenant": Tenant("default_tenant", None)}

    async def create(self, name: str) -> None:
        self._catalog.check()
        if name in self.rows:
            raise AlreadyExists(f"Tenant [{name}] already exists")
        self.rows[name] = Tenant(name, None)

    async def get(self, name: str) -> Tenant | None:
        self._catalog.check()
        return self.rows.get(name)

    async def set_resource_name(self, name: str, value: str) -> bool:
        tenant = self.rows[name]
        if tenant.resource_name not in (None, value):
            return False
        self.rows[name] = replace(tenant, resource_name=value)
        return True

    async def find_by_resource_name(self, value: str) -> Tenant | None:
        return next((tenant for tenant in self.rows.values() if tenant.resource_name == value), None)


class MemoryDatabases:
    def __init__(self, catalog: MemoryCatalog) -> None:
        self._catalog = catalog
        self._keys = itertools.count(1)
        self.fill()

    def fill(self) -> None:
        default = Database(str(uuid.UUID(int=0)), "k0", "default_database", "default_tenant")
        self.rows = {("default_tenant", "default_database"): default}

    async def create(self, tenant: str, name: str) -> None:
        if (tenant, name) in self.rows:
            raise AlreadyExists(f"Database [{name}] already exists")
        self.rows[tenant, name] = Database(str(uuid.uuid4()), f"k{next(self._keys)}", name, tenant)

    async def get(self, tenant: str, name: str) -> Database | None:
        self._catalog.check()
        return self.rows.get((tenant, name))

    async def of_tenant(self, tenant: str, limit: int | None, offset: int) -> list[Database]:
        found = [database for database in self.rows.values() if database.tenant == tenant]
        return found[offset:][:limit]

    async def some(self, tenant: str, names: frozenset[str]) -> list[Database]:
        return [database for database in await self.of_tenant(tenant, None, 0) if database.name in names]

    async def delete(self, tenant: str, name: str) -> bool:
        database = self.rows.pop((tenant, name), None)
        if database is not None:
            self._catalog.collections.drop(database)
        return database is not None


class MemoryCollections:
    def __init__(self, catalog: MemoryCatalog) -> None:
        self._catalog = catalog
        self.fill()

    def fill(self) -> None:
        self.rows: dict[str, Collection] = {}

    def drop(self, database: Database) -> None:
        self.rows = {id_: row for id_, row in self.rows.items() if row.database_key != database.key}

    def _of(self, database: Database) -> list[Collection]:
        return [row for row in self.rows.values() if row.database_key == database.key]

    async def create(self, db: Database, new: NewCollection, get_or_create: bool) -> tuple[Collection, bool]:
        if (db.tenant, db.name) not in self._catalog.databases.rows:
            raise NotFound("closed")
        existing = await self.get(db, new.name)
        if existing is not None:
            if get_or_create:
                return existing, False
            raise AlreadyExists(f"Collection [{new.name}] already exists")
        row = Collection(
            id=str(uuid.uuid4()),
            name=new.name,
            tenant=db.tenant,
            database=db.name,
            database_key=db.key,
            metadata=new.metadata,
            configuration=new.configuration,
            schema=new.schema,
            layout=Layout(0, new.fixed["shards"]),
            generation=1,
            dimension=None,
            head=1,
            keys=frozenset(),
            pointers=(None,) * new.fixed["shards"],
            fixed=new.fixed,
            written=(0,) * new.fixed["shards"],
        )
        self.rows[row.id] = row
        return row, True

    async def get(self, db: Database, name: str) -> Collection | None:
        return next((row for row in self._of(db) if row.name == name), None)

    async def get_by_id(self, db: Database, collection_id: str) -> Collection | None:
        self._catalog.check()
        row = self.rows.get(collection_id)
        return row if row is not None and row.database_key == db.key else None

    async def get_durable(self, db: Database, collection_id: str) -> Collection | None:
        return await self.get_by_id(db, collection_id)

    async def of_database(self, db: Database, limit: int | None, offset: int) -> list[Collection]:
        return self._of(db)[offset:][:limit]

    async def some(self, db: Database, ids: frozenset[str]) -> list[Collection]:
        return [collection for collection in self._of(db) if collection.id in ids]

    async def count(self, db: Database) -> int:
        return len(self._of(db))

    async def delete(self, db: Database, name: str) -> bool:
        row = await self.get(db, name)
        return row is not None and self.rows.pop(row.id, None) is not None

    async def update(
        self,
        db: Database,
        collection: Collection,
        *,
        name: Any = _KEEP,
        metadata: Any = _KEEP,
        configuration: Any = _KEEP,
        schema: Any = _KEEP,
    ) -> bool:
        current = self.rows[collection.id]
        if current.generation != collection.generation:
            return False
        if name is not _KEEP and any(row.name == name for row in self._of(db)):
            raise AlreadyExists(f"Collection [{name}] already exists")
        given = {"name": name, "metadata": metadata, "configuration": configuration, "schema": schema}
        changes = {field: value for field, value in given.items() if value is not _KEEP}
        self.rows[collection.id] = replace(current, generation=current.generation + 1, **changes)
        return True
