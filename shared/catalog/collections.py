"""Collections: rows in one hash of each database, with the collections' states beside their logs.

The row decides whether a collection exists. Its state is made before the row, an orphan until then, and is marked
deleted after the row is gone.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis

from shared.catalog.databases import Databases
from shared.catalog.journal import Journal, after_commit
from shared.catalog.losses import Losses
from shared.catalog.model import UNSET, Collection, Database, Function, NewCollection, Unset
from shared.catalog.quotas import DEFAULT_QUOTAS, CatalogQuotas, quota_exceeded
from shared.catalog.reading import CatalogReader, is_collection_id, repeated, text_of
from shared.catalog.rows import FIRST_GENERATION, changed_row, collection_of, function_of, new_row
from shared.catalog.scripts import CatalogScripts
from shared.catalog.slots import Slot, path_to
from shared.errors import AlreadyExists, Attached, Corrupt, Garbled, Gone, NotFound, Unavailable
from shared.log.lifecycle import Lifecycle
from shared.log.outputs import Outputs
from shared.log.pairs import PairsReader
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX, Argument

ATTEMPTS_MAX: Final = 32
"""Tries of a creation, which begins anew when it loses a race. Every round lost is one that another creator or deleter
of the same name won, so that all get through in the end; fifty at once need more than five rounds.
"""


LOOKS_MAX: Final = 3
"""Times that a collection is looked at whose state is lost whenever it is read, and is there right after."""


class Collections:
    """The collections of all databases, each of which has as many of them at most as `quotas` say. Everything
    raises Unavailable while Redis is away or not restored.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        databases: Databases,
        journal: Journal,
        quotas: CatalogQuotas = DEFAULT_QUOTAS,
    ) -> None:
        self.journal = journal
        self._redis = redis
        self._keys = keys
        self._databases = databases
        self._reader = CatalogReader(redis, keys)
        self._scripts = CatalogScripts(redis, keys)
        self._lifecycle = Lifecycle(redis, keys)
        self._outputs = Outputs(redis, keys)
        self._losses = Losses(redis, keys)
        self._quotas = quotas
        self._pairs = PairsReader(redis, keys)

    # Reading

    async def get(self, db: Database, name: str) -> Collection | None:
        """None when the database has none of this name, or is not there."""
        collection_id = await self._reader.one("HGET", self._keys.names(db.key), name)
        if collection_id is None:
            await self._losses.require_whole(db.key)
            return None
        found = await self.get_by_id(db, text_of(collection_id)) if is_collection_id(collection_id) else None
        if found is None:
            await self._losses.require_named(db.key, name, collection_id)
        return found

    async def get_durable(self, db: Database, collection_id: str) -> Collection | None:
        """As `get_by_id`, and its creation is durable: nothing may be acknowledged in a collection that could be lost
        with Redis, because the process that made it died before the journal had it. Raises NotJournaled.
        """
        found = await self.get_by_id(db, collection_id)
        if found is not None and found.generation == FIRST_GENERATION:
            await self.journal.settle_row(path_to(db), collection_id)
        return found

    async def get_by_id(self, db: Database, collection_id: str) -> Collection | None:
        """None when the database has none of this id, or is not there. Raises Unavailable, too, while what Redis lost
        of the collection is being restored.
        """

        async def read() -> list[Any]:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hget(self._keys.rows(db.key), collection_id)
                pipeline.hgetall(self._keys.state(collection_id))
                pipeline.scard(self._keys.metadata_keys(collection_id))
                replies: list[Any] = await pipeline.execute()
                return replies

        for _ in range(LOOKS_MAX):
            row, state, count = await repeated(read)
            found = None
            if row is not None:
                pairs = (await self._pairs.read({collection_id: (state, count)}))[collection_id]
                try:
                    found = collection_of(db, collection_id, row, state, pairs)
                except Garbled:
                    await self._losses.note(db.key)
                    raise
            if found is not None:
                return found
            await self._reader.require_cluster()
            if row is None:
                await self._losses.require_whole(db.key)
                return None
            await self._losses.require_state(db.key, collection_id)
            if not await self._losses.has_living_row(db.key, collection_id):
                return None
            # Its state was lost when it was read, and has come back since.
        raise Unavailable(f"Collection {collection_id} is being restored")

    async def of_database(self, db: Database, limit: int | None = None, offset: int = 0) -> list[Collection]:
        """In order of creation, `limit` of them at most (None: all), without the first `offset`. Raises Unavailable,
        too, while what Redis lost of one of them is being restored.
        """
        ids = await self._reader.members_in_order(self._keys.order(db.key), limit, offset)
        if not ids and limit != 0:
            await self._reader.require_cluster()
        found = await self._get_many(db, ids)
        if len(found) < len(ids) or (not ids and limit != 0):
            await self._losses.require_whole(db.key)
        return await self._completed(db, ids, found)

    async def some(self, db: Database, ids: Iterable[str]) -> list[Collection]:
        """Those collections of the database that have one of these ids, in order of creation. Raises Unavailable, too,
        while what Redis lost of one of them is being restored.
        """
        found_ids = await self._reader.some_in_order(self._keys.order(db.key), frozenset(ids))
        found = await self._get_many(db, found_ids)
        if len(found) < len(found_ids) or not found_ids:
            await self._reader.require_cluster()
            await self._losses.require_whole(db.key)
        return await self._completed(db, found_ids, found)

    async def _completed(self, db: Database, ids: Sequence[str], found: Sequence[Collection]) -> list[Collection]:
        """The collections with these ids, which had a place in the order and of which those `found` were read: each of
        the others was deleted meanwhile, or something of it was lost when it was read, and may have come back since.
        """
        by_id = {collection.id: collection for collection in found}
        lacking = [each for each in ids if each not in by_id]
        await self._losses.require_rows(Slot(database=db.key), lacking)
        for missing in lacking:
            again = await self.get_by_id(db, missing)
            if again is not None:
                by_id[missing] = again
        return [by_id[each] for each in ids if each in by_id]

    async def present(self, db: Database, damaged: dict[str, str] | None = None) -> list[Collection]:
        """Those collections of the database of which nothing is missing. `damaged` as for `all`."""
        return await self._get_many(db, await self._reader.members_in_order(self._keys.order(db.key)), damaged)

    async def survey(self, db: Database) -> tuple[list[Collection], dict[str, str]]:
        """The collections of the database, in order of creation, and by id what is wrong with those that cannot be
        read, of which it is known that they are there.
        """
        ids = await self._reader.members_in_order(self._keys.order(db.key))
        unreadable: dict[str, str] = {}
        found = await self._get_many(db, ids, unreadable)
        for missing in set(ids) - {collection.id for collection in found} - unreadable.keys():
            try:
                await self._losses.require_state(db.key, missing)
            except Unavailable as error:
                await self._reader.require_cluster()
                unreadable[missing] = error.message
        return found, unreadable

    async def ids(self, db: Database) -> list[str]:
        """The ids of the database's collections, in order of creation, without a look at them."""
        return await self._reader.members_in_order(self._keys.order(db.key))

    async def names(self, db: Database) -> dict[str, str]:
        """The name of each collection of the database, by id."""
        names = await self._reader.all_values(self._keys.names(db.key))
        return {text_of(collection_id): name for name, collection_id in names.items()}

    async def count(self, db: Database) -> int:
        """Number of collections that the database has."""
        count: int = await self._reader.one("HLEN", self._keys.names(db.key))
        if not count:
            await self._reader.require_cluster()
        await self._losses.require_whole(db.key)
        return count

    async def all(self, damaged: dict[str, str] | None = None) -> AsyncIterator[Collection]:
        """Every collection. Raises Unavailable rather than end early on a server that has lost everything; Garbled when
        a row cannot be read, and Corrupt when the state of a collection cannot, unless `damaged` is given: then it is
        left out, and its id is there with what is wrong. Left out, too, are all of a tenant or a database of which that
        is so.
        """
        await self._reader.require_cluster()
        unreadable = None if damaged is None else set[str]()
        async for database in self._databases.all(unreadable):
            ids = await self._reader.members_in_order(self._keys.order(database.key))
            for start in range(0, len(ids), PIPELINE_MAX):
                for collection in await self._get_many(database, ids[start : start + PIPELINE_MAX], damaged):
                    yield collection
        await self._reader.require_cluster()

    async def _get_many(
        self, db: Database, ids: Sequence[str], damaged: dict[str, str] | None = None
    ) -> list[Collection]:
        """Those of the ids that exist, pipelined. `damaged` as for `all`."""
        values = await self._reader.values(self._keys.rows(db.key), ids)
        rows = {each: row for each, row in zip(ids, values, strict=True) if row is not None}
        present = list(rows)
        collections: list[Collection] = []
        for start in range(0, len(present), PIPELINE_MAX):
            batch = present[start : start + PIPELINE_MAX]
            replies = await repeated(partial(self._states_and_counts, batch))
            states = dict(zip(batch, zip(replies[0::2], replies[1::2], strict=True), strict=True))
            pairs = await self._pairs.read(states)
            for collection_id in batch:
                row = rows[collection_id]
                try:
                    found = collection_of(db, collection_id, row, states[collection_id][0], pairs[collection_id])
                except (Corrupt, Garbled) as error:
                    if isinstance(error, Garbled):
                        await self._losses.note(db.key)
                    if damaged is None:
                        raise
                    damaged[collection_id] = error.message
                    continue
                if found is not None:
                    collections.append(found)
        return collections

    async def _states_and_counts(self, ids: Sequence[str]) -> list[Any]:
        """The replies for each id: its state hash, and then its number of (metadata key, value type) pairs."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for collection_id in ids:
                pipeline.hgetall(self._keys.state(collection_id))
                pipeline.scard(self._keys.metadata_keys(collection_id))
            replies: list[Any] = await pipeline.execute()
            return replies

    # Changing

    async def create(self, db: Database, new: NewCollection, get_or_create: bool) -> tuple[Collection, bool]:
        """The collection, and whether this call made it. Raises AlreadyExists, and NotFound when the database was
        deleted; of the output of a function, which has one input, also Attached (to another output) and Gone (the
        input).
        """
        async with self.journal.change(path_to(db)):
            for _ in range(ATTEMPTS_MAX):
                found = await self.get(db, new.name)
                if found is not None:
                    if get_or_create:
                        return found, False  # durable, too: the one who made it may have died before that
                    raise AlreadyExists(f"Collection [{new.name}] already exists")
                created = await self._create(db, new)
                if created is not None:
                    return created, True
            raise Unavailable(f"Collection [{new.name}] is being created and deleted by others")

    async def _create(self, db: Database, new: NewCollection) -> Collection | None:
        """State first, then the row, then a look whether the state is still there: None when another creator was faster
        or the collector took the state for an orphan.
        """
        collection_id = str(uuid.uuid4())
        await self._lifecycle.create(collection_id, db.key, new.fixed, FIRST_GENERATION, dimension=new.dimension)
        inputs = new.function.inputs if new.function else ()
        reply = await self.add_row(db, new, collection_id, *inputs)
        if reply == [b"OK"]:
            with after_commit():
                return await self.get_by_id(db, collection_id)
        await self._lifecycle.collect(collection_id)
        self.refuse_full(db, reply)
        _refuse_input(reply, inputs)
        if reply == [b"CLOSED"]:
            raise NotFound(f"Database [{db.name}] does not exist")
        return None

    async def add_row(self, db: Database, new: NewCollection, collection_id: str, *inputs: str) -> list[Any]:
        """The reply of collections.lua to the row of a collection whose state is there. Raises StorageFull."""
        most = self._quotas.collections_of(db.tenant, db.name)
        call: list[Argument] = [new.name, collection_id, new_row(new), most, *inputs]
        return await self._scripts.collections(db.key, "add", *call)

    def refuse_full(self, db: Database, reply: Sequence[Any]) -> None:
        """Raises QuotaExceeded when that is what a reply to `add_row` says."""
        if reply == [b"FULL"]:
            most = self._quotas.collections_of(db.tenant, db.name)
            raise quota_exceeded("Number of collections", "Create collection", most, most)

    async def adopt(self, db: Database, collection_id: str, new: NewCollection) -> None:
        """Makes an orphan that was filled before, and is no fork, a collection. Raises AlreadyExists, and NotFound when
        the database was deleted, or the orphan was collected.
        """
        async with self.journal.change(path_to(db)):
            reply = await self.add_row(db, new, collection_id)
        self.refuse_full(db, reply)
        match reply:
            case [b"TAKEN", _]:
                raise AlreadyExists(f"Collection [{new.name}] already exists")
            case [b"CLOSED"]:
                raise NotFound(f"Database [{db.name}] does not exist")
        with after_commit():
            found = await self.get_by_id(db, collection_id)
        if found is None:
            raise NotFound(f"Collection [{new.name}] does not exist")

    async def delete(self, db: Database, name: str, only: str | None = None) -> bool:
        """False when there is none, or (with `only`, an id) when another collection has the name. After True nothing of
        it can be read or written any more.
        """
        async with self.journal.change(path_to(db)):
            return await self._delete(db, name, only)

    async def _delete(self, db: Database, name: str, only: str | None) -> bool:
        collection_id = await self._reader.one("HGET", self._keys.names(db.key), name)
        if collection_id is None:
            await self._losses.require_whole(db.key)
            return False
        if only not in (None, text_of(collection_id)):
            return False
        row = await self._reader.one("HGET", self._keys.rows(db.key), collection_id)
        if row is None:
            await self._losses.require_named(db.key, name, collection_id)
            return False
        function = await self._function_of(db, text_of(collection_id), row)
        await self._scripts.collections(db.key, "delete", name, collection_id)
        with after_commit():
            await self._lifecycle.mark_deleted([collection_id.decode()])
            for input_id in function.inputs if function else ():
                await self._outputs.unfeed(input_id, collection_id.decode())
        return True

    async def _function_of(self, db: Database, collection_id: str, row: bytes) -> Function | None:
        """The function whose output the collection is. Raises Garbled for a row that cannot be read, which is noted."""
        try:
            return function_of(collection_id, row)
        except Garbled:
            await self._losses.note(db.key)
            raise

    async def update(
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
        AlreadyExists when the name is taken; with `new_input`, the id of one more input of the function whose output
        the collection is, also Attached (to another output) and Gone (the input).
        """
        given: dict[str, Any] = {"name": name, "metadata": metadata, "configuration": configuration, "schema": schema}
        given["function"] = function
        changes = {field: value for field, value in given.items() if value is not UNSET}
        async with self.journal.change(path_to(db)):
            return await self._update(db, collection, changes, new_input)

    async def _update(
        self, db: Database, collection: Collection, changes: Mapping[str, Any], new_input: str | None
    ) -> bool:
        row, generation = changed_row(collection, changes), collection.generation + 1
        new_name = changes.get("name", collection.name)
        inputs = [] if new_input is None else [new_input]
        call: list[Argument] = [collection.id, generation, new_name, row, *inputs]
        reply = await self._scripts.collections(db.key, "update", *call)
        _refuse_input(reply, inputs)
        match reply:
            case [b"TAKEN", _]:
                raise AlreadyExists(f"Collection [{new_name}] already exists")
            case [b"STALE"]:
                return False
        with after_commit():
            await self._lifecycle.raise_generation(collection.id, generation)
            if "metadata" in changes:
                await self.want_shards(dataclasses.replace(collection, metadata=changes["metadata"]))
        return True

    async def forgotten(self, db: Database) -> bytes:
        """A word that changes whenever deleted collections of the database are forgotten: from then on nothing here
        says any more that they were deleted.
        """
        found: list[bytes] = await self._scripts.collections(db.key, "forgotten")
        return found[0]

    async def recover(self, db: Database, known: Mapping[str, bytes | str], seen: bytes) -> list[str] | None:
        """Puts back what Redis lost of the names, the rows and the order of a database: from each other, and where no
        row is left from `known`, the rows by id that the bucket has. Returns the ids of what is there now. None when
        collections were forgotten since `forgotten`, which must be asked before the bucket is read, said `seen`.
        """
        rows = await self._reader.all_values(self._keys.rows(db.key))
        recovered: list[str] = []
        for collection_id, row in {**known, **rows}.items():
            reply = await self._scripts.collections(db.key, "recover", seen, collection_id, row)
            if reply == [b"CHANGED"]:
                return None
            recovered += [collection_id] if reply == [b"OK"] else []
        return recovered

    async def want_shards(self, collection: Collection) -> bool:
        """Asks for the shards that the collection's metadata wants; whether that is more than it is going to have."""
        if collection.shards_wanted:
            await self._lifecycle.want_shards(collection.id, collection.shards_wanted)
        return collection.shards_wanted > 0


def _refuse_input(reply: Sequence[Any], inputs: Iterable[str]) -> None:
    """Raises what a reply of collections.lua says of the function's input."""
    match reply:
        case [b"ATTACHED", output]:
            raise Attached(f"collection {', '.join(inputs)} has a function with the output {output.decode()}")
        case [b"GONE"]:
            raise Gone(f"collection {', '.join(inputs)} was deleted")
