"""The catalog: tenants, databases, collections, in Redis.

What decides is one script in one slot: the row of a collection in its database's slot, the row of a database in its
tenant's. Everything else that a creation or deletion needs stands in other slots and follows: before the commit as an
orphan, after it as trash. Whoever changed something finishes it before answering; what a process leaves by dying,
`shared.catalog.collector` completes.

Every change may be repeated after a lost answer: rows carry keys that are unique for ever, and scripts recognise them.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from shared.catalog.founding import Cluster, Founding
from shared.catalog.model import (
    DEFAULT_DATABASE,
    DEFAULT_DATABASE_ID,
    DEFAULT_TENANT,
    UNSET,
    Collection,
    Database,
    Function,
    NewCollection,
    Tenant,
    Unset,
)
from shared.catalog.removal import Removal
from shared.catalog.rows import FIRST_GENERATION, changed_row, collection_of, function_of, new_row
from shared.catalog.slots import Slots
from shared.errors import AlreadyExists, Attached, Gone, NotFound, Unavailable
from shared.log.lifecycle import Lifecycle
from shared.log.outputs import Outputs
from shared.redis.client import command, guarded, persist
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX, Argument

ATTEMPTS_MAX: Final = 32
"""How often a creation that loses a race begins anew. Every round lost is one that another creator or deleter of the
same name won, so that all get through in the end; fifty at once need more than five rounds.
"""


class Catalog:
    """Getters return None for what does not exist. Everything raises Unavailable while Redis is away or not
    restored.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._slots = Slots(redis, keys)
        self._lifecycle = Lifecycle(redis, keys)
        self._founding = Founding(redis, keys)
        self._removal = Removal(redis, keys)
        self._outputs = Outputs(redis, keys)

    # The cluster

    async def found(self, cluster: Cluster | None = None, run: str | None = None) -> Cluster:
        """Opens a new (or restored) cluster in this Redis. For the log service, which knows whether it must restore
        first and in which run of the server it began to look; and for tests that run without one.
        """
        return await self._founding.found(cluster, run)

    async def cluster(self) -> Cluster | None:
        """None while this Redis holds no cluster, or one whose restoration has not ended."""
        return await self._founding.cluster()

    async def server_run(self) -> tuple[str, bool]:
        """The Redis server's present run, and whether `mark_verified` was called in it."""
        return await self._founding.server_run()

    async def mark_verified(self, run: str) -> None:
        """Says that what this run of the server holds was compared with the bucket."""
        await self._founding.mark_verified(run)

    async def bootstrap(self) -> None:
        """Makes the default tenant and database. Raises Unavailable until the log service has opened the cluster."""
        await self._founding.require()
        with suppress(AlreadyExists):
            await self.create_tenant(DEFAULT_TENANT)
        with suppress(AlreadyExists):
            await self._create_database(DEFAULT_TENANT, DEFAULT_DATABASE, DEFAULT_DATABASE_ID)

    async def reset(self) -> None:
        """Removes everything and makes the defaults again."""
        await self._founding.require()
        await self._slots.tenants("reset")
        await self._removal.finish_tenants()
        await self.bootstrap()
        await self._slots.changed()

    async def count_change(self) -> None:
        """After a change that was made beside the catalog and belongs into its snapshots."""
        await self._slots.changed()

    async def changes(self) -> int:
        """A number that is another one after every change of the catalog."""
        return int(await persist(lambda: command(self._redis, "GET", self._keys.changes), writes=False) or 0)

    # Tenants

    async def create_tenant(self, name: str) -> None:
        await self._founding.require()
        row = orjson.dumps({"key": uuid.uuid4().hex, "resource_name": None})
        for _ in range(ATTEMPTS_MAX):
            match await self._slots.tenants("create", name, row):
                case b"OK":
                    return await self._slots.changed()
                case b"EXISTS":
                    raise AlreadyExists(f"Tenant [{name}] already exists")
            await self._removal.clear_tenant(name)  # a reset is not through yet: finish it for this tenant
        raise Unavailable("The server is being reset")

    async def get_tenant(self, name: str) -> Tenant | None:
        row = await self._read("HGET", self._keys.tenants, name)
        return None if row is None else Tenant(name, orjson.loads(row)["resource_name"])

    async def tenants(self) -> list[Tenant]:
        """Every tenant, by name."""
        rows = await self._hash(self._keys.tenants)
        return [Tenant(name, orjson.loads(rows[name])["resource_name"]) for name in sorted(rows)]

    async def set_resource_name(self, name: str, value: str) -> bool:
        """False: the tenant has another one, or the value belongs to another tenant. Raises NotFound."""
        await self._founding.require()
        outcome = await self._slots.tenants("resource", name, value)
        if outcome == b"MISSING":
            raise NotFound(f"Tenant [{name}] not found")
        await self._slots.changed()
        return bool(outcome == b"OK")

    async def find_tenant_by_resource_name(self, value: str) -> Tenant | None:
        name = await self._read("HGET", self._keys.resources, value)
        return None if name is None else await self.get_tenant(name.decode())

    # Databases

    async def create_database(self, tenant: str, name: str) -> Database:
        """Raises AlreadyExists, and NotFound when there is no such tenant."""
        return await self._create_database(tenant, name, str(uuid.uuid4()))

    async def _create_database(self, tenant: str, name: str, database_id: str) -> Database:
        if await self.get_tenant(tenant) is None:
            raise NotFound(f"Tenant [{tenant}] not found")
        key = uuid.uuid4().hex
        outcome = await self._slots.databases(tenant, "create", name, orjson.dumps({"id": database_id, "key": key}))
        if outcome == b"EXISTS":
            raise AlreadyExists(f"Database [{name}] already exists")
        await self._slots.changed()
        return Database(database_id, key, name, tenant)

    async def get_database(self, tenant: str, name: str) -> Database | None:
        with guarded():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hexists(self._keys.tenants, tenant)
                pipeline.hget(self._keys.databases(tenant), name)
                known, row = await pipeline.execute()
        # A tenant that a reset has removed has no databases, even before they are cleared.
        if not known or row is None:
            await self._founding.require()
            return None
        return _database(tenant, name, row)

    async def list_databases(self, tenant: str, limit: int | None = None, offset: int = 0) -> list[Database]:
        """In order of creation; none for an unknown tenant."""
        if limit == 0 or await self.get_tenant(tenant) is None:
            return []
        names = await self._page(self._keys.database_order(tenant), limit, offset)
        rows = await self._many(self._keys.databases(tenant), names)
        return [_database(tenant, name, row) for name, row in zip(names, rows, strict=True) if row is not None]

    async def delete_database(self, tenant: str, name: str) -> bool:
        """With its collections. False when there is none."""
        database = await self.get_database(tenant, name)
        if database is None:
            return False
        await self._slots.databases(tenant, "delete", name, database.key)
        await self._removal.finish_database(database.key)
        await self._slots.changed()
        return True

    # Collections

    async def create_collection(self, db: Database, new: NewCollection, get_or_create: bool) -> tuple[Collection, bool]:
        """The collection, and whether this call made it. Raises AlreadyExists, and NotFound when the database was
        deleted. The output of a function has one input. Raises Attached and Gone.
        """
        await self._founding.require()
        for _ in range(ATTEMPTS_MAX):
            found = await self.get_collection(db, new.name)
            if found is not None:
                if get_or_create:
                    return found, False
                raise AlreadyExists(f"Collection [{new.name}] already exists")
            created = await self._create_collection(db, new)
            if created is not None:
                await self._slots.changed()
                return created, True
        raise Unavailable(f"Collection [{new.name}] is being created and deleted by others")

    async def _create_collection(self, db: Database, new: NewCollection) -> Collection | None:
        """State first, then the row, then a look whether the state is still there: None when another creator was faster
        or the collector took the state for an orphan.
        """
        collection_id = str(uuid.uuid4())
        await self._lifecycle.create(collection_id, db.key, new.fixed, FIRST_GENERATION, dimension=new.dimension)
        inputs = new.function.inputs if new.function else ()
        outcome, *rest = await self._slots.collections(db.key, "create", new.name, collection_id, new_row(new), *inputs)
        if outcome != b"OK":
            await self._lifecycle.collect(collection_id)
        _check_input(outcome, rest, *inputs)
        if outcome == b"CLOSED":
            raise NotFound(f"Database [{db.name}] does not exist")
        return await self.get_collection_by_id(db, collection_id) if outcome == b"OK" else None

    async def get_collection(self, db: Database, name: str) -> Collection | None:
        collection_id = await self._read("HGET", self._keys.names(db.key), name)
        return None if collection_id is None else await self.get_collection_by_id(db, collection_id.decode())

    async def get_collection_by_id(self, db: Database, collection_id: str) -> Collection | None:
        with guarded():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hget(self._keys.rows(db.key), collection_id)
                pipeline.hgetall(self._keys.state(collection_id))
                pipeline.smembers(self._keys.metadata_keys(collection_id))
                row, state, keys = await pipeline.execute()
        found = None if row is None else collection_of(db, collection_id, row, state, keys)
        if found is None:
            await self._founding.require()
        return found

    async def list_collections(self, db: Database, limit: int | None = None, offset: int = 0) -> list[Collection]:
        """In order of creation."""
        if limit == 0:
            return []
        ids = await self._page(self._keys.order(db.key), limit, offset)
        if not ids:
            await self._founding.require()
        return await self._collections(db, ids)

    async def _collections(self, db: Database, ids: Sequence[str]) -> list[Collection]:
        """Those of the ids that exist, pipelined."""
        rows = await self._many(self._keys.rows(db.key), ids)
        found: list[Collection] = []
        for start in range(0, len(ids), PIPELINE_MAX):
            some = ids[start : start + PIPELINE_MAX]
            with guarded():
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for collection_id in some:
                        pipeline.hgetall(self._keys.state(collection_id))
                        pipeline.smembers(self._keys.metadata_keys(collection_id))
                    answers = await pipeline.execute()
            for collection_id, row, state, keys in zip(
                some, rows[start : start + PIPELINE_MAX], answers[0::2], answers[1::2], strict=True
            ):
                one = None if row is None else collection_of(db, collection_id, row, state, keys)
                if one is not None:
                    found.append(one)
        return found

    async def count_collections(self, db: Database) -> int:
        count: int = await self._read("HLEN", self._keys.names(db.key))
        if not count:
            await self._founding.require()
        return count

    async def delete_collection(self, db: Database, name: str) -> bool:
        """False when there is none. After True nothing of it can be read or written any more."""
        collection_id = await self._read("HGET", self._keys.names(db.key), name)
        if collection_id is None:
            return False
        row = await self._read("HGET", self._keys.rows(db.key), collection_id)
        await self._slots.collections(db.key, "delete", name, collection_id)
        await self._lifecycle.mark_deleted([collection_id.decode()])
        function = None if row is None else function_of(row)
        for given in function.inputs if function else ():
            await self._outputs.unfeed(given, collection_id.decode())
        await self._slots.changed()
        return True

    async def update_collection(
        self,
        db: Database,
        collection: Collection,
        *,
        name: str | Unset = UNSET,
        metadata: dict[str, Any] | Unset | None = UNSET,
        configuration: dict[str, Any] | Unset = UNSET,
        schema: dict[str, Any] | Unset = UNSET,
        function: Function | Unset = UNSET,
        new_input: str | None = None,
    ) -> bool:
        """Changes the row if it is still of `collection.generation`. False: it is not; read again. Raises
        AlreadyExists; with a new input for the function, whose output the collection is, also Attached and Gone.
        """
        given: dict[str, Any] = {"name": name, "metadata": metadata, "configuration": configuration, "schema": schema}
        given["function"] = function
        changes = {field: value for field, value in given.items() if value is not UNSET}
        row, generation = changed_row(collection, changes), collection.generation + 1
        new_name = collection.name if isinstance(name, Unset) else name
        call: list[Argument] = [collection.id, generation, new_name, row]
        call += [] if new_input is None else [new_input]
        outcome, *rest = await self._slots.collections(db.key, "update", *call)
        _check_input(outcome, rest, new_input)
        if outcome == b"TAKEN":
            raise AlreadyExists(f"Collection [{new_name}] already exists")
        if outcome == b"STALE":
            return False
        await self._lifecycle.raise_generation(collection.id, generation)
        if not isinstance(metadata, Unset):
            await self.want_shards(dataclasses.replace(collection, metadata=metadata))
        await self._slots.changed()
        return True

    async def want_shards(self, collection: Collection) -> bool:
        """Asks for the shards that the collection's metadata wants; whether that is more than it is going to have."""
        if collection.shards_wanted:
            await self._lifecycle.want_shards(collection.id, collection.shards_wanted)
        return collection.shards_wanted > 0

    # Everything, for the log service

    async def databases(self) -> AsyncIterator[Database]:
        """Every database of every tenant; each tenant's in order of creation."""
        for tenant in await self.tenants():
            for database in await self.list_databases(tenant.name):
                yield database

    async def collections(self) -> AsyncIterator[Collection]:
        """Every collection. Raises Unavailable rather than end early on a server that has lost everything."""
        await self._founding.require()
        async for database in self.databases():
            ids = await self._page(self._keys.order(database.key), None, 0)
            for start in range(0, len(ids), PIPELINE_MAX):
                for collection in await self._collections(database, ids[start : start + PIPELINE_MAX]):
                    yield collection
        await self._founding.require()

    # Reading

    async def _read(self, *call: Any) -> Any:
        """One command. An empty answer counts only when the cluster is there."""
        with guarded():
            answer = await command(self._redis, *call)
        if answer is None:
            await self._founding.require()
        return answer

    async def _page(self, order: str, limit: int | None, offset: int) -> list[str]:
        stop = -1 if limit is None else offset + limit - 1
        with guarded():
            return [member.decode() for member in await command(self._redis, "ZRANGE", order, offset, stop)]

    async def _many(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        values: list[bytes | None] = []
        with guarded():
            for start in range(0, len(fields), PIPELINE_MAX):
                values += await command(self._redis, "HMGET", key, *fields[start : start + PIPELINE_MAX])
        return values

    async def _hash(self, key: str) -> dict[str, bytes]:
        with guarded():
            pairs: Iterable[tuple[bytes, bytes]] = (await command(self._redis, "HGETALL", key)).items()
        return {field.decode(): value for field, value in pairs}


def _check_input(outcome: bytes, rest: Sequence[bytes], given: str | None = None) -> None:
    if outcome == b"ATTACHED":
        raise Attached(f"collection {given} has a function with the output {rest[0].decode()}")
    if outcome == b"GONE":
        raise Gone(f"collection {given} was deleted")


def _database(tenant: str, name: str, row: bytes) -> Database:
    fields = orjson.loads(row)
    return Database(fields["id"], fields["key"], name, tenant)
