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
    def __init__(self) -> None:
        self.away = False
        self._fill()

    def _fill(self) -> None:
        self._keys = itertools.count(1)
        self.tenants = {"default_tenant": Tenant("default_tenant", None)}
        default = Database(str(uuid.UUID(int=0)), "k0", "default_database", "default_tenant")
        self.databases = {("default_tenant", "default_database"): default}
        self.collections: dict[str, Collection] = {}

    def _check(self) -> None:
        if self.away:
            raise Unavailable("Redis is away")

    async def bootstrap(self) -> None:
        self._check()

    async def reset(self) -> None:
        self._check()
        self._fill()

    async def create_tenant(self, name: str) -> None:
        self._check()
        if name in self.tenants:
            raise AlreadyExists(f"Tenant [{name}] already exists")
        self.tenants[name] = Tenant(name, None)

    async def get_tenant(self, name: str) -> Tenant | None:
        self._check()
        return self.tenants.get(name)

    async def set_resource_name(self, name: str, value: str) -> bool:
        tenant = self.tenants[name]
        if tenant.resource_name not in (None, value):
            return False
        self.tenants[name] = replace(tenant, resource_name=value)
        return True

    async def find_tenant_by_resource_name(self, value: str) -> Tenant | None:
        return next((tenant for tenant in self.tenants.values() if tenant.resource_name == value), None)

    async def create_database(self, tenant: str, name: str) -> None:
        if (tenant, name) in self.databases:
            raise AlreadyExists(f"Database [{name}] already exists")
        self.databases[tenant, name] = Database(str(uuid.uuid4()), f"k{next(self._keys)}", name, tenant)

    async def get_database(self, tenant: str, name: str) -> Database | None:
        self._check()
        return self.databases.get((tenant, name))

    async def list_databases(self, tenant: str, limit: int | None, offset: int) -> list[Database]:
        found = [database for database in self.databases.values() if database.tenant == tenant]
        return found[offset:][:limit]

    async def delete_database(self, tenant: str, name: str) -> bool:
        database = self.databases.pop((tenant, name), None)
        if database is not None:
            self.collections = {k: c for k, c in self.collections.items() if c.database_key != database.key}
        return database is not None

    def _of(self, database: Database) -> list[Collection]:
        return [row for row in self.collections.values() if row.database_key == database.key]

    async def create_collection(self, db: Database, new: NewCollection, get_or_create: bool) -> tuple[Collection, bool]:
        if (db.tenant, db.name) not in self.databases:
            raise NotFound("closed")
        existing = await self.get_collection(db, new.name)
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
        self.collections[row.id] = row
        return row, True

    async def get_collection(self, db: Database, name: str) -> Collection | None:
        return next((row for row in self._of(db) if row.name == name), None)

    async def get_collection_by_id(self, db: Database, collection_id: str) -> Collection | None:
        self._check()
        row = self.collections.get(collection_id)
        return row if row is not None and row.database_key == db.key else None

    async def list_collections(self, db: Database, limit: int | None, offset: int) -> list[Collection]:
        return self._of(db)[offset:][:limit]

    async def count_collections(self, db: Database) -> int:
        return len(self._of(db))

    async def delete_collection(self, db: Database, name: str) -> bool:
        row = await self.get_collection(db, name)
        return row is not None and self.collections.pop(row.id, None) is not None

    async def update_collection(
        self,
        db: Database,
        collection: Collection,
        *,
        name: Any = _KEEP,
        metadata: Any = _KEEP,
        configuration: Any = _KEEP,
        schema: Any = _KEEP,
    ) -> bool:
        current = self.collections[collection.id]
        if current.generation != collection.generation:
            return False
        if name is not _KEEP and any(row.name == name for row in self._of(db)):
            raise AlreadyExists(f"Collection [{name}] already exists")
        given = {"name": name, "metadata": metadata, "configuration": configuration, "schema": schema}
        changes = {field: value for field, value in given.items() if value is not _KEEP}
        self.collections[collection.id] = replace(current, generation=current.generation + 1, **changes)
        return True
