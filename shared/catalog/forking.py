"""The catalog's part in making a fork: its place in the family, its orphan, its row, or the end of all three."""

from __future__ import annotations

import time
import uuid

from redis.asyncio import Redis

from shared.catalog.catalog import Catalog
from shared.catalog.families import Families
from shared.catalog.model import Collection, Database, NewCollection
from shared.catalog.removal import Removal
from shared.catalog.rows import FIRST_GENERATION, new_row
from shared.catalog.slots import Slots
from shared.errors import AlreadyExists, NotFound, QuotaExceeded
from shared.log.lifecycle import Lifecycle
from shared.redis.keys import Keys


class Forking:
    """In this order: `reserve`, then the fork's manifests and its log, then `commit`; `give_up` instead of that."""

    def __init__(self, redis: Redis, keys: Keys, catalog: Catalog) -> None:
        self._catalog = catalog
        self._slots = Slots(redis, keys)
        self._lifecycle = Lifecycle(redis, keys)
        self._families = Families(redis, keys)
        self._removal = Removal(redis, keys)

    async def count(self, collection: Collection) -> int:
        """The forks that the collection's family ever made."""
        return await self._families.count(collection.root)

    async def reserve(self, origin: Collection, new: NewCollection, forks_max: int) -> str:
        """The id of the fork to be. Raises QuotaExceeded."""
        fork_id = str(uuid.uuid4())
        await self._lifecycle.create(fork_id, origin.database_key, new.fixed, FIRST_GENERATION, family=origin.root)
        try:
            await self._families.add(origin.root, fork_id, forks_max)
        except QuotaExceeded:
            await self._lifecycle.collect(fork_id)
            raise
        return fork_id

    async def commit(self, db: Database, fork_id: str, new: NewCollection) -> Collection | None:
        """The fork, if this was not too late: None when it was taken for an orphan. Raises AlreadyExists, and NotFound
        when the database was deleted; then it is given up. NotFound, too, when the fork is gone
        already: deleted by somebody, or buried before its row came.
        """
        outcome, *_ = await self._slots.collections(db.key, "create", new.name, fork_id, new_row(new))
        if outcome == b"OK":
            await self._slots.changed()
            found = await self._catalog.get_collection_by_id(db, fork_id)
            if found is None:
                raise NotFound(f"Collection [{new.name}] does not exist")
            return found
        await self.give_up(new.ancestors[0], fork_id)
        if outcome == b"TAKEN":
            raise AlreadyExists(f"Collection [{new.name}] already exists")
        if outcome == b"CLOSED":
            raise NotFound(f"Database [{db.name}] does not exist")
        return None

    async def give_up(self, root: str, fork_id: str) -> None:
        """A fork without a row: its objects go as those of deleted collections do."""
        await self._families.remove(root, fork_id)
        await self._removal.bury({fork_id: time.time()})
        await self._lifecycle.collect(fork_id)
