"""A cache of catalog rows, by collection id.

A row in the cache may be outdated; nothing depends on it. Every append and every read checks the collection's own
state, so a stale row costs a second try: `frontend.collections.current_row` refreshes it then.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from frontend.uuids import canonical_uuid
from shared.catalog import Collection
from shared.catalog.collections import Collections
from shared.catalog.databases import Databases
from shared.errors import InvalidArgument, NotFound
from shared.process.clock import Clock

DATABASE_NAME_LENGTH_MIN: Final = 3


def check_database_name(name: str) -> None:
    """Raises InvalidArgument for a name too short for any database."""
    if len(name) < DATABASE_NAME_LENGTH_MIN:
        raise InvalidArgument("database name must be at least 3 characters")


def check_collection_id(text: str) -> str:
    """The id as it is stored. Raises InvalidArgument."""
    collection_id = canonical_uuid(text)
    if collection_id is None:
        raise InvalidArgument("Collection ID is not a valid UUIDv4")
    return collection_id


def missing(collection_id: str) -> NotFound:
    """The 404 of routes that take an id; routes that take a name say it without the full stop."""
    return NotFound(f"Collection [{collection_id}] does not exist.")


class RowCache:
    """The `rows_max` most recently used rows of all tenants. A row is fetched anew after `age_max_s` seconds, so that a
    change made through another frontend (a new `ef_search`, say) is noticed even by a collection that is only read.
    """

    def __init__(
        self,
        databases: Databases,
        collections: Collections,
        clock: Clock,
        *,
        rows_max: int = 10_000,
        age_max_s: float = 10.0,
    ) -> None:
        self._databases = databases
        self._collections = collections
        self._clock = clock
        self._rows_max = rows_max
        self._age_max_s = age_max_s
        self._rows: OrderedDict[str, tuple[Collection, float]] = OrderedDict()
        self._renewed: set[str] = set()  # rows that are being fetched because they are old
        self._lookups: dict[str, asyncio.Task[Collection]] = {}  # of refreshes, which have not begun yet

    async def resolve(self, tenant: str, database: str, collection_id_text: str) -> Collection:
        """Checks 2 to 4 in the order of docs/wire.md, section 2: the database's name, the id's form, the collection's
        existence in exactly that tenant and database. Raises InvalidArgument, NotFound.
        """
        check_database_name(database)
        known = self._rows.get(collection_id_text)
        collection_id = collection_id_text if known is not None else check_collection_id(collection_id_text)
        known = known or self._rows.get(collection_id)
        if known is None or known[0].tenant != tenant or known[0].database != database:
            return await self._fetch(tenant, database, collection_id)
        row, fetched_s = known
        now_s = self._clock.monotonic()
        if now_s - fetched_s <= self._age_max_s or collection_id in self._renewed:
            self._rows.move_to_end(collection_id)
            return row
        self._renewed.add(collection_id)  # other requests go on with the old row until the new one is here
        try:
            return await self._fetch(tenant, database, collection_id)
        except NotFound:
            self.forget(collection_id)
            raise
        finally:
            self._renewed.discard(collection_id)

    async def read(self, tenant: str, database: str, collection_id_text: str) -> Collection:
        """Like `resolve`, and the row as it is now, whatever the cache holds."""
        check_database_name(database)
        return await self._fetch(tenant, database, check_collection_id(collection_id_text))

    async def refresh(self, collection: Collection) -> Collection:
        """The row as it is now, whatever the cache holds. Callers that ask before the lookup begins share it: a group
        of writes is refused as a whole when its row is outdated, and all of them ask at once. Raises NotFound when the
        collection is gone. While the catalog is away the cached row stays: an outdated one does no harm.
        """
        lookup = self._lookups.get(collection.id)
        if lookup is None:
            lookup = self._lookups[collection.id] = asyncio.create_task(self._look_up(collection))
            lookup.add_done_callback(_note_failure)
        return await asyncio.shield(lookup)

    async def _look_up(self, collection: Collection) -> Collection:
        del self._lookups[collection.id]  # it begins: later callers may know of a later change
        try:
            return await self._fetch(collection.tenant, collection.database, collection.id)
        except NotFound:
            self.forget(collection.id)
            raise

    def learn(self, collection: Collection, pairs: Iterable[tuple[str, str]]) -> None:
        """Adds (metadata key, value type) pairs that an append brought to the row, unless it was read anew since."""
        known = self._rows.get(collection.id)
        if known is not None and known[0] is collection:
            self._rows[collection.id] = (dataclasses.replace(collection, keys=collection.keys.union(pairs)), known[1])

    def forget(self, collection_id: str) -> None:
        """Drops the row: the caller has changed or deleted the collection, or found that it is gone."""
        self._rows.pop(collection_id, None)

    def clear(self) -> None:
        """Drops all rows."""
        self._rows.clear()

    async def _fetch(self, tenant: str, database_name: str, collection_id: str) -> Collection:
        started_s = self._clock.monotonic()
        database = await self._databases.get(tenant, database_name)
        row = None if database is None else await self._collections.get_durable(database, collection_id)
        if row is None:
            raise missing(collection_id)
        self._rows[collection_id] = (row, started_s)
        self._rows.move_to_end(collection_id)
        while len(self._rows) > self._rows_max:
            self._rows.popitem(last=False)
        return row


def _note_failure(lookup: asyncio.Task[Collection]) -> None:
    """A lookup's failure is its callers' to handle, of whom there may be none left."""
    if not lookup.cancelled():
        lookup.exception()
