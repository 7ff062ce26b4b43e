"""Attached functions in the catalog. A function is attached with the row of its output, which names it and its inputs,
and detached with the change or the end of that row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from shared.catalog.collections import ATTEMPTS_MAX, Collections
from shared.catalog.model import Collection, Database, Function, NewCollection
from shared.catalog.reading import text_of
from shared.catalog.rows import function_of, pointers_of
from shared.cluster.placement import Layout
from shared.errors import Gone, StaleGeneration
from shared.log.jobs import FUNCTION, Jobs
from shared.log.outputs import Outputs
from shared.log.state import Pointer
from shared.records.model import FIRST_POSITION
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys

RECORD_COUNTER: Final = "record_counter"
STATISTICS: Final = "statistics"
KNOWN: Final = (RECORD_COUNTER, STATISTICS)
"""Names of the functions that this build can run."""

BACKFILL_PRIORITY: Final = 10.0
"""Priority of the job that runs a function for the first time, or that catches up."""

OUTPUT_DIMENSION: Final = 1
"""Dimension of an output's embeddings, which mean nothing."""


@dataclass(frozen=True, slots=True)
class FunctionInput:
    """An input of a function as of one moment: the pointers of its shards, and the sum of the versions of all manifests
    that its shards ever had. `epoch` is that of its state.
    """

    id: str
    pointers: Mapping[int, Pointer | None]
    versions: int
    epoch: int

    @property
    def provenance(self) -> dict[str, Any]:
        """The origin of an output that is computed now, as far as this input goes: the versions of its manifests, and
        the position (exclusive) up to which they hold everything.
        """
        seen = {str(shard): pointer.version for shard, pointer in self.pointers.items() if pointer}
        covers = [pointer.covers if pointer else FIRST_POSITION for pointer in self.pointers.values()]
        return {"manifests": seen, "position": min(covers)}


class Functions:
    """Attaches, detaches and looks up functions. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys, collections: Collections) -> None:
        self._redis = redis
        self._keys = keys
        self._collections = collections
        self._outputs = Outputs(redis, keys)
        self._jobs = Jobs(redis, keys)

    async def output_of(self, db: Database, input_collection: Collection) -> Collection | None:
        """The output of the function that is attached to the collection; None when none is."""
        key = self._keys.functions(db.key)
        output = await retry_idempotent(lambda: command(self._redis, "HGET", key, input_collection.id), writes=False)
        found = None if output is None else await self._collections.get_by_id(db, output.decode())
        return found if found and found.function and input_collection.id in found.function.inputs else None

    async def count(self, db: Database) -> int:
        """The number of collections of the database that are the output of a function."""
        key = self._keys.functions(db.key)
        ids = set(await retry_idempotent(lambda: command(self._redis, "HVALS", key), writes=False))
        outputs = await self._collections.some(db, (output.decode() for output in ids))
        return sum(output.function is not None and bool(output.function.inputs) for output in outputs)

    async def attach(self, db: Database, input_collection: Collection, new: NewCollection) -> Collection:
        """Attaches the function of `new` to its first input; returns the output, which is a new collection. Raises
        Attached, AlreadyExists (the output's name is taken), NotFound, Gone.
        """
        output, _ = await self._collections.create(db, new, get_or_create=False)
        await self._begin(input_collection, output)
        return output

    async def add_input(self, db: Database, output: Collection, input_collection: Collection) -> Collection:
        """Gives the output one more input; returns it as it is then. Raises Attached, Gone, StaleGeneration."""
        for _ in range(ATTEMPTS_MAX):
            function = output.function
            if function is None:
                raise Gone(f"the function of {output.id} is gone")
            if input_collection.id in function.inputs:
                return output
            more = dataclasses.replace(function, inputs=(*function.inputs, input_collection.id))
            if await self._collections.update(db, output, function=more, new_input=input_collection.id):
                await self._begin(input_collection, output)
                return dataclasses.replace(output, function=more)
            output = await self._again(db, output)
        raise StaleGeneration("The output is being changed by others; try again")

    async def detach(self, db: Database, output: Collection, input_collection: Collection, delete_output: bool) -> None:
        """Detaches the function from an input, or deletes the output, and so detaches it from all inputs. Raises Gone,
        StaleGeneration.
        """
        for _ in range(ATTEMPTS_MAX):
            function = output.function
            if function is None or input_collection.id not in function.inputs:
                return
            if delete_output:
                await self._collections.delete(db, output.name)
                return
            left = dataclasses.replace(
                function, inputs=tuple(input_id for input_id in function.inputs if input_id != input_collection.id)
            )
            if await self._collections.update(db, output, function=left):
                await self._outputs.unfeed(input_collection.id, output.id)
                return
            output = await self._again(db, output)
        raise StaleGeneration("The output is being changed by others; try again")

    async def _again(self, db: Database, output: Collection) -> Collection:
        found = await self._collections.get_by_id(db, output.id)
        if found is None:
            raise Gone(f"collection {output.id} was deleted")
        return found

    async def _begin(self, input_collection: Collection, output: Collection) -> None:
        """Does what follows the commit of an attachment; a process that dies before it has leaves it to `repair`."""
        await self._outputs.feed(input_collection.id, output.id, input_collection.compactions)
        if input_collection.compactions:
            await self._jobs.put(output.id, FUNCTION, BACKFILL_PRIORITY)

    # For compactors

    async def function_of(self, output: str) -> Function | None:
        """The function whose output this collection is; None when it is no output, or gone."""
        key = self._keys.state(output)
        database = await retry_idempotent(lambda: command(self._redis, "HGET", key, "db"), writes=False)
        if database is None:
            return None
        rows = self._keys.rows(text_of(database))
        row = await retry_idempotent(lambda: command(self._redis, "HGET", rows, output), writes=False)
        return None if row is None else function_of(output, row)

    async def read_input(self, collection_id: str) -> FunctionInput | None:
        """The input as it is now; None when it is gone."""
        key = self._keys.state(collection_id)
        state = await retry_idempotent(lambda: command(self._redis, "HGETALL", key), writes=False)
        if b"head" not in state or b"deleted" in state:
            return None
        layout = Layout.decode(state[b"layout"])
        pointers = dict(zip(layout.numbers, pointers_of(state, layout), strict=True))
        versions = int(state.get(b"versions_before", 0)) + sum(
            pointer.version for pointer in pointers.values() if pointer
        )
        return FunctionInput(collection_id, pointers, versions, int(state.get(b"epoch", 0)))

    async def progress(self, output: Collection, input_collection: Collection) -> int:
        """The position (exclusive) up to which the output has seen everything of the input."""
        provenance, _ = await self._outputs.provenance(output.id)
        seen = orjson.loads(provenance)["basis"].get(input_collection.id) if provenance else None
        return int(seen["position"]) if seen else FIRST_POSITION

    # For the log service

    async def repair(self, collections: Iterable[Collection]) -> None:
        """Given all collections, queues the functions that are behind, and corrects the states of collections that were
        detached from a function by a process that died.
        """
        every = {collection.id: collection for collection in collections}
        attached = {
            input_id: collection.id
            for collection in every.values()
            if collection.function
            for input_id in collection.function.inputs
        }
        for collection in every.values():
            output = attached.get(collection.id)
            if collection.feeds is not None and collection.feeds != output:
                await self._outputs.unfeed(collection.id, collection.feeds)
            if output is not None and (collection.feeds != output or collection.counted < collection.compactions):
                await self._jobs.put(output, FUNCTION, BACKFILL_PRIORITY)
