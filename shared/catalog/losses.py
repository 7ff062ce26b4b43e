"""Losses of a part of the catalog in Redis, while everything else is there: noticed by whoever misses it, recovered by
the log service (`logservice.restoring.database_recovery`) from the bucket within seconds. Until then it is unavailable,
and not gone.

The names, the rows and the order of a database's collections are changed together, by one script. So when they differ
in number, some are lost. A row whose state is not whole has lost its state: states are made before rows, and removed
after them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from redis.asyncio import Redis

from shared.catalog.notes import Notes
from shared.catalog.readable import can_be_read, tenant_row
from shared.catalog.reading import NO_TEXT
from shared.catalog.scripts import TENANTS_NOTE
from shared.catalog.slots import Slot
from shared.errors import Unavailable
from shared.log.required import checked_fields, is_whole
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX, Script

AGREEMENT: Final = Script("shared.catalog", "agreement")


class Losses:
    """Notices losses, and has the databases in Redis that have some. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self.noted = Notes(redis, keys.losses)
        """The keys of the databases to look at, and TENANTS_NOTE for the tenants and their databases."""

    async def require_whole(self, database_key: str) -> None:
        """To be called before a collection counts as missing. Raises Unavailable when the database has lost something,
        which is noted.
        """
        if not await self.agrees(database_key):
            await self._miss(database_key)

    async def agrees(self, database_key: str) -> bool:
        """Whether the database has as many names as rows, and each has its place in the order."""
        names = self._keys
        keys = [names.names(database_key), names.rows(database_key), names.order(database_key)]
        return bool(await AGREEMENT.run(self._redis, keys, writes=False))

    async def require_tenant(self, tenant: str) -> None:
        """To be called before a tenant counts as missing, or is made. Raises Unavailable when it was lost, which is
        noted: it has databases, and was not removed.
        """
        names = self._keys

        async def ask() -> list[int]:
            async with self._redis.pipeline(transaction=False) as pipeline:  # in this order
                pipeline.exists(names.databases(tenant))
                pipeline.sismember(names.tenant_trash, tenant)
                pipeline.hexists(names.tenants, tenant)
                replies: list[int] = await pipeline.execute()
                return replies

        databases, removed, there = await retry_idempotent(ask, writes=False)
        if databases and not removed and not there:
            await self._miss(TENANTS_NOTE)

    async def require_databases(self, tenant: str) -> None:
        """To be called before a tenant's database counts as missing. Raises Unavailable when rows or places in the
        order of its databases were lost, which is noted.
        """
        rows = self._keys.databases(tenant)
        keys = [rows, rows, self._keys.database_order(tenant)]  # there is nothing between their names and their rows
        if not await AGREEMENT.run(self._redis, keys, writes=False):
            await self._miss(TENANTS_NOTE)

    async def require_rows(self, slot: Slot, listed: Sequence[str]) -> None:
        """To be called of names or ids that have a place in the slot's order of creation, and of which no row was
        found. Raises Unavailable when one has its place still, and no row, which is noted: both go together.
        """
        rows, *_, order = slot.keys(self._keys)
        for start in range(0, len(listed), PIPELINE_MAX):
            some = listed[start : start + PIPELINE_MAX]

            async def ask(some: Sequence[str] = some) -> list[list[Any]]:
                async with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.zmscore(order, list(some))
                    pipeline.hmget(rows, list(some))
                    answers: list[list[Any]] = await pipeline.execute()
                    return answers

            places, found = await retry_idempotent(ask, writes=False)
            if any(
                row is None and (place is not None or NO_TEXT in each)
                for each, place, row in zip(some, places, found, strict=True)
            ):
                await self._miss(slot.database or TENANTS_NOTE)

    async def require_named(self, database_key: str, name: str, collection_id: bytes) -> None:
        """To be called when the collection with this id, which the name led to, was not found. Raises Unavailable when
        the name leads there still, and there is no row, which is noted: both go together.
        """
        leads_to, row = await self._both(
            (self._keys.names(database_key), name), self._keys.rows(database_key), collection_id
        )
        if leads_to == collection_id and row is None:
            await self._miss(database_key)

    async def require_owner(self, resource: str, tenant: bytes) -> None:
        """To be called when the tenant that the resource name led to was not found, or has another one. Raises
        Unavailable when both is so still, which is noted.
        """
        leads_to, row = await self._both((self._keys.resources, resource), self._keys.tenants, tenant)
        if leads_to != tenant:
            return
        if row is None or tenant_row("", row)["resource_name"] != resource:
            await self._miss(TENANTS_NOTE)

    async def _both(self, source: tuple[str, str], rows: str, target: bytes) -> tuple[bytes | None, bytes | None]:
        """Where a field of a hash leads to, and the row that `target` has, as of one moment."""

        async def ask() -> list[Any]:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hget(*source)
                pipeline.hmget(rows, [target])
                replies: list[Any] = await pipeline.execute()
                return replies

        leads_to, found = await retry_idempotent(ask, writes=False)
        return leads_to, found[0]

    async def _miss(self, noted: str) -> None:
        await self.note(noted)
        raise Unavailable("A part of the catalog was lost and is being restored")

    async def lacking(self, database_key: str, known: Iterable[str]) -> set[str]:
        """Those of these collections, which the database had, that have no row which can be read, though nobody deleted
        them. It agrees
        all the same when all of it was lost. Whoever deletes one puts it into the trash in the same step, and there is
        a grave before it leaves that.
        """
        ids, found, slot = list(known), set[str](), Slot(database=database_key)
        names = self._keys
        for start in range(0, len(ids), PIPELINE_MAX):
            some = ids[start : start + PIPELINE_MAX]

            async def ask(some: list[str] = some) -> list[list[Any]]:
                async with self._redis.pipeline(transaction=False) as pipeline:  # in this order
                    pipeline.hmget(names.rows(database_key), some)
                    pipeline.smismember(names.trash(database_key), some)
                    pipeline.zmscore(names.graves, some)
                    answers: list[list[Any]] = await pipeline.execute()
                    return answers

            answers = await retry_idempotent(ask, writes=False)
            for collection_id, row, deleted, grave in zip(some, *answers, strict=True):
                if (row is None or not can_be_read(slot, row)) and not deleted and grave is None:
                    found.add(collection_id)
        return found

    async def require_state(self, database_key: str, collection_id: str) -> None:
        """To be called of a collection whose state was read and is not whole. Raises Unavailable when it has a row all
        the same, which is noted.
        """
        if await self.lost_state(database_key, collection_id):
            await self.note(database_key)
            raise Unavailable(f"The state of collection {collection_id} was lost and is being restored")

    async def lost_state(self, database_key: str, collection_id: str) -> bool:
        """Whether the collection has a row and no whole state, though it is not deleted. A row that came after its
        orphan was buried goes again (`shared.catalog.collector`).
        """
        if not await self.has_row_alone(database_key, collection_id):
            return False
        grave = ("ZSCORE", self._keys.graves, collection_id)
        return await retry_idempotent(lambda: command(self._redis, *grave), writes=False) is None

    async def has_living_row(self, database_key: str, collection_id: str) -> bool:
        """Whether the collection has a row and was not deleted, whatever there is of its state."""
        calls = [("HEXISTS", self._keys.state(collection_id), "deleted")]
        calls += [("HEXISTS", self._keys.rows(database_key), collection_id)]
        calls += [("ZSCORE", self._keys.graves, collection_id)]
        deleted, row, grave = [
            await retry_idempotent(lambda call=call: command(self._redis, *call), writes=False)  # type: ignore[misc] # no type for a lambda with a default
            for call in calls
        ]
        return bool(row) and not deleted and grave is None

    async def has_row_alone(self, database_key: str, collection_id: str) -> bool:
        """Whether the collection has a row, and its state is not whole. The state is looked at first: a deletion
        removes it after the row.
        """
        call = ("HMGET", self._keys.state(collection_id), "deleted", *checked_fields())
        deleted, *values = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        if deleted is not None or is_whole(dict(zip(checked_fields(), values, strict=True)), database_key):
            return False
        row = ("HEXISTS", self._keys.rows(database_key), collection_id)
        return bool(await retry_idempotent(lambda: command(self._redis, *row), writes=False))

    async def note(self, database_key: str) -> None:
        """Has the log service look at the database."""
        await self.noted.add([database_key])
