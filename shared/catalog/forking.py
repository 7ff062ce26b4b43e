"""The catalog's part in making a fork: its place in the family, its orphan, its row, or the end of all three."""

from __future__ import annotations

import time
import uuid

from redis.asyncio import Redis

from shared.catalog.collections import Collections
from shared.catalog.families import Families
from shared.catalog.journal import after_commit
from shared.catalog.model import Collection, Database, NewCollection
from shared.catalog.removal import Removal
from shared.catalog.rows import FIRST_GENERATION
from shared.catalog.scripts import CatalogScripts
from shared.catalog.slots import path_to
from shared.errors import AlreadyExists, NotFound, QuotaExceeded
from shared.log.lifecycle import Lifecycle
from shared.redis.keys import Keys


class Forking:
    """The catalog's steps of a fork: `reserve`, then the fork's manifests and its log are made, then `commit`; or
    `give_up` instead of that. Everything raises Unavailable while Redis is away.
    """

    def __init__(self, redis: Redis, keys: Keys, collections: Collections) -> None:
        self._collections = collections
        self._scripts = CatalogScripts(redis, keys)
        self._lifecycle = Lifecycle(redis, keys)
        self._families = Families(redis, keys)
        self._removal = Removal(redis, keys, collections.journal)

    async def count(self, collection: Collection) -> int:
        """The forks that the collection's family ever made."""
        return await self._families.count(collection.root)

    async def reserve(self, origin: Collection, new: NewCollection, forks_max: int) -> str:
        """The id of the fork to be, which is an orphan and a member of the family from here on. Raises QuotaExceeded
        when the family has made `forks_max` forks.
        """
        fork_id = str(uuid.uuid4())
        await self._lifecycle.create(
            fork_id, origin.database_key, new.fixed, FIRST_GENERATION, family=origin.root, epoch=origin.epoch
        )
        try:
            await self._families.add(origin.root, fork_id, forks_max)
        except QuotaExceeded:
            await self._lifecycle.collect(fork_id)
            raise
        return fork_id

    async def commit(self, db: Database, fork_id: str, new: NewCollection) -> Collection | None:
        """Writes the fork's row; the fork, or None when it had been taken for an orphan before. Raises AlreadyExists,
        QuotaExceeded, and NotFound when the database was deleted; in all these cases it is given up. Raises NotFound,
        too, when the fork is gone already: deleted after its row was written, or buried before.
        """
        async with self._collections.journal.change(path_to(db)):
            reply = await self._collections.add_row(db, new, fork_id)
        if reply == [b"OK"]:
            with after_commit():
                found = await self._collections.get_by_id(db, fork_id)
            if found is None:
                raise NotFound(f"Collection [{new.name}] does not exist")
            return found
        await self.give_up(new.ancestors[0], fork_id)
        self._collections.refuse_full(db, reply)
        match reply:
            case [b"TAKEN", _]:
                raise AlreadyExists(f"Collection [{new.name}] already exists")
            case [b"CLOSED"]:
                raise NotFound(f"Database [{db.name}] does not exist")
        return None

    async def give_up(self, root: str, fork_id: str) -> None:
        """Ends a fork that has no row: it leaves the family, and its objects go as those of deleted collections do."""
        await self._families.remove(root, fork_id)
        await self._removal.bury({fork_id: time.time()})
        await self._lifecycle.collect(fork_id)
