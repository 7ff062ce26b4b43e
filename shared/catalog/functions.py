"""Attached functions in the catalog: attached with the row of the output, detached with its change or its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from shared.catalog.collections import ATTEMPTS_MAX, Collections
from shared.catalog.model import Collection, Database, Function, NewCollection
from shared.catalog.rows import function_of, pointers_of
from shared.cluster.placement import Layout
from shared.errors import Gone, StaleGeneration
from shared.log.jobs import FUNCTION, Jobs
from shared.log.outputs import Outputs
from shared.log.state import Pointer
from shared.records.model import FIRST_POSITION
from shared.redis.client import command, persist
from shared.redis.keys import Keys

RECORD_COUNTER: Final = "record_counter"
STATISTICS: Final = "statistics"
KNOWN: Final = (RECORD_COUNTER, STATISTICS)
"""The functions there are."""

BACKFILL_PRIORITY: Final = 10.0
OUTPUT_DIMENSION: Final = 1


@dataclass(frozen=True, slots=True)
class FunctionInput:
    """A collection as of one moment: its shards' manifests, and the sum of all the versions that these ever had."""

    id: str
    pointers: Mapping[int, Pointer | None]
    versions: int

    @property
    def provenance(self) -> dict[str, Any]:
        """The origin of an output that is computed now, as far as this input goes: the versions of its manifests, and
        the position (exclusive) up to which they hold everything.
        """
        seen = {str(shard): pointer.version for shard, pointer in self.pointers.items() if pointer}
        covers = [pointer.covers if pointer else FIRST_POSITION for pointer in self.pointers.values()]
        return {"manifests": seen, "position": min(covers)}


class Functions:
    """Outputs are collections whose row names a function and its inputs."""

    def __init__(self, redis: Redis, keys: Keys, collections: Collections) -> None:
        self._redis = redis
        self._keys = keys
        self._collections = collections
        self._outputs = Outputs(redis, keys)
        self._jobs = Jobs(redis, keys)

    async def output_of(self, db: Database, given: Collection) -> Collection | None:
        """The output of the function that is attached to the collection."""
        key = self._keys.functions(db.key)
        output = await persist(lambda: command(self._redis, "HGET", key, given.id), writes=False)
        found = None if output is None else await self._collections.get_by_id(db, output.decode())
        return found if found and found.function and given.id in found.function.inputs else None

    async def attach(self, db: Database, given: Collection, new: NewCollection) -> Collection:
        """The new output of one input. Raises Attached, AlreadyExists (its name is taken), NotFound, Gone."""
        output, _ = await self._collections.create(db, new, get_or_create=False)
        await self._begin(given, output)
        return output

    async def add_input(self, db: Database, output: Collection, given: Collection) -> Collection:
        """The output, which has one more input now. Raises Attached, Gone, StaleGeneration."""
        for _ in range(ATTEMPTS_MAX):
            function = output.function
            if function is None:
                raise Gone(f"the function of {output.id} is gone")
            if given.id in function.inputs:
                return output
            more = dataclasses.replace(function, inputs=(*function.inputs, given.id))
            if await self._collections.update(db, output, function=more, new_input=given.id):
                await self._begin(given, output)
                return dataclasses.replace(output, function=more)
            output = await self._again(db, output)
        raise StaleGeneration("The output is being changed by others; try again")

    async def detach(self, db: Database, output: Collection, given: Collection, delete_output: bool) -> None:
        """From one input; or, with the output, from all of them. Raises Gone, StaleGeneration."""
        for _ in range(ATTEMPTS_MAX):
            function = output.function
            if function is None or given.id not in function.inputs:
                return
            if delete_output:
                await self._collections.delete(db, output.name)
                return
            left = dataclasses.replace(function, inputs=tuple(one for one in function.inputs if one != given.id))
            if await self._collections.update(db, output, function=left):
                await self._outputs.unfeed(given.id, output.id)
                return
            output = await self._again(db, output)
        raise StaleGeneration("The output is being changed by others; try again")

    async def _again(self, db: Database, output: Collection) -> Collection:
        found = await self._collections.get_by_id(db, output.id)
        if found is None:
            raise Gone(f"collection {output.id} was deleted")
        return found

    async def _begin(self, given: Collection, output: Collection) -> None:
        """Behind the commit; what dies here, `repair` does."""
        await self._outputs.feed(given.id, output.id, given.compactions)
        if given.compactions:
            await self._jobs.put(output.id, FUNCTION, BACKFILL_PRIORITY)

    # For compactors

    async def function_of(self, output: str) -> Function | None:
        """The function that makes the output; None when the collection is no output, or gone."""
        key = self._keys.state(output)
        database = await persist(lambda: command(self._redis, "HGET", key, "db"), writes=False)
        if database is None:
            return None
        rows = self._keys.rows(database.decode())
        row = await persist(lambda: command(self._redis, "HGET", rows, output), writes=False)
        return None if row is None else function_of(row)

    async def read_input(self, collection_id: str) -> FunctionInput | None:
        """None when it is gone."""
        key = self._keys.state(collection_id)
        state = await persist(lambda: command(self._redis, "HGETALL", key), writes=False)
        if b"head" not in state or b"deleted" in state:
            return None
        layout = Layout.decode(state[b"layout"])
        pointers = dict(zip(layout.numbers, pointers_of(state, layout), strict=True))
        versions = int(state.get(b"versions_before", 0)) + sum(one.version for one in pointers.values() if one)
        return FunctionInput(collection_id, pointers, versions)

    async def progress(self, output: Collection, given: Collection) -> int:
        """The position below which all of the input is in the output."""
        made = await self._outputs.made(output.id)
        basis = orjson.loads(made)["basis"].get(given.id) if made else None
        return int(basis["position"]) if basis else FIRST_POSITION

    # For the log service

    async def repair(self, collections: Iterable[Collection]) -> None:
        """Of all collections: queues the functions that are behind, and frees those from a function that have none."""
        every = {one.id: one for one in collections}
        attached = {given: one.id for one in every.values() if one.function for given in one.function.inputs}
        for one in every.values():
            output = attached.get(one.id)
            if one.feeds is not None and one.feeds != output:
                await self._outputs.unfeed(one.id, one.feeds)
            if output is not None and (one.feeds != output or one.counted < one.compactions):
                await self._jobs.put(output, FUNCTION, BACKFILL_PRIORITY)
