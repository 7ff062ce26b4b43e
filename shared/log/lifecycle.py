"""The life of a collection's state: created before its catalog row, marked deleted after it, collected later.

The row decides whether a collection exists (`shared.catalog`); these steps follow it in the collection's own slot.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from shared.cluster.placement import Layout
from shared.errors import Corrupt, Unavailable
from shared.log.batch import decode_batch, dimension_of
from shared.log.required import checked_fields, is_whole, required_fields, unreadable_fields, unreadable_shard_fields
from shared.log.state import Pointer
from shared.records.model import FIRST_POSITION
from shared.redis.client import command, retry_idempotent, translated_errors
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

STATE = Script("shared.log", "state")
STATE_CREATED = Script("shared.log", "state", flags="")
"""The script as a client's creation of a collection runs it, which a full server refuses."""

REJOIN = Script("shared.log", "rejoin")
SCAN_COUNT = 1000
_OF_SHARD = re.compile(rb"tail:(\d+)")
DIMENSION_PAGE = 8


@dataclass(frozen=True, slots=True)
class Owner:
    """The collection that a state belongs to, with its database and the state's age in seconds. `family`: the root of a
    fork's family, "" for a collection that was not made as a fork.
    """

    collection_id: str
    database_key: str
    age_s: float
    family: str


class Rejoined(NamedTuple):
    """The content of a collection's streams: the end (exclusive) of the newest append in any of them, and how many of
    them are not empty; the fields of the state that were missing.
    """

    end: int
    streams: int
    filled: list[str]


class Lifecycle:
    """Creates, changes and removes state hashes, whatever the streams hold. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def create(
        self,
        collection_id: str,
        database_key: str,
        fixed: Mapping[str, Any],
        generation: int,
        *,
        dimension: int | None = None,
        family: str = "",
        epoch: int = 0,
    ) -> None:
        """Creates the state of a new collection: an orphan until the catalog row is written. `fixed` is what never
        changes of it (space, shards, ef_construction, max_neighbors); `family` the root of the family that a fork
        joins, `epoch` that of its origin. Raises StorageFull, and ValueError for a collection without shards.
        """
        layout = Layout(0, fixed["shards"])
        if layout.count < 1:  # nobody could restore it
            raise ValueError(f"a collection of {layout.count} shards")
        args = ["create", *_fields(database_key, fixed, generation, dimension, layout), "head", FIRST_POSITION]
        args += ["family", family] if family else []
        args += ["epoch", epoch] if epoch else []
        if layout.count > 1 and not family:
            args += ["cut", FIRST_POSITION]  # nothing is compacted before there is a root without manifests
        await STATE_CREATED.run(self._redis, [self._keys.state(collection_id)], args)

    async def restore(
        self,
        collection_id: str,
        head: int,
        epoch: int,
        position: int,
        *,
        database_key: str,
        fixed: Mapping[str, Any],
        generation: int | None,
        dimension: int | None,
        layout: Layout,
        pointers: Sequence[Pointer | None],
    ) -> int:
        """Creates a lost state, or raises the head and the epoch of one that is there; returns the head. Positions
        below the head are never handed out (again). `pointers` are those of the layout's shards: manifests of one
        moment, which is `position`. Without `generation` the state is not whole yet, and everybody refuses it until
        `fill` gives it one.
        """
        args = ["restore", head, epoch, *_fields(database_key, fixed, generation, dimension, layout)]
        for shard, pointer in zip(layout.numbers, pointers, strict=True):
            if pointer is not None:
                # Nothing of the log is before what the manifest covers: a pointer that is lost shows by that.
                args += [f"m:{shard}", pointer.encode(), f"trimmed:{shard}", pointer.covers]
        args += ["cut", position, "root", position] if layout.count > 1 else []
        streams = [self._keys.log(collection_id, shard) for shard in layout.numbers]
        restored: int = await STATE.run(self._redis, [self._keys.state(collection_id), *streams], args)
        return restored

    async def rejoin(self, collection_id: str, layout: Layout) -> Rejoined:
        """Gives a state that lost fields, or all of them, back what its streams say."""
        streams = [self._keys.log(collection_id, shard) for shard in layout.numbers]
        keys = [self._keys.state(collection_id), *streams]
        end, count, filled = await REJOIN.run(self._redis, keys, layout.numbers)
        return Rejoined(end, count, [field.decode() for field in filled])

    async def rejoin_many(self, layouts: Mapping[str, Layout]) -> dict[str, list[str]]:
        """Gives the states of collections, by their layouts, back what they lost of what their streams say: the fields
        that were missing, of each that lost any.
        """
        calls = []
        for collection_id, layout in layouts.items():
            streams = [self._keys.log(collection_id, shard) for shard in layout.numbers]
            calls.append(([self._keys.state(collection_id), *streams], list(layout.numbers)))
        answers = await REJOIN.run_many(self._redis, calls)
        return {
            collection_id: [field.decode() for field in filled]
            for collection_id, (_, _, filled) in zip(layouts, answers, strict=True)
            if filled
        }

    async def logged_dimension(self, collection_id: str, layout: Layout) -> int | None:
        """The width of the embeddings in the streams; None when there are none."""
        for shard in layout.numbers:
            start = "-"
            while True:
                call = ("XRANGE", self._keys.log(collection_id, shard), start, "+", "COUNT", DIMENSION_PAGE)
                page = await retry_idempotent(lambda call=call: command(self._redis, *call), writes=False)  # type: ignore[misc] # no type for a lambda with a default
                for entry_id, values in page:
                    start = f"({entry_id.decode()}"
                    with suppress(Corrupt):  # its readers name it
                        dimension = dimension_of(decode_batch(values[b"d"]))
                        if dimension is not None:
                            return dimension
                if len(page) < DIMENSION_PAGE:
                    break
        return None

    async def fill(
        self,
        collection_id: str,
        head: int,
        epoch: int,
        *,
        database_key: str,
        fixed: Mapping[str, Any],
        generation: int,
        dimension: int | None,
        layout: Layout,
        pointers: Sequence[Pointer | None],
        is_open: bool = False,
    ) -> int:
        """Gives a state that lost fields these in their place, and raises its head and epoch; returns the head. Its
        streams go on. `pointers` are those of the layout's shards. While the cluster `is_open` in this epoch, no state
        is of a later one: raises Unavailable for a state that is, because the cluster was restored since.
        """
        args = [
            "refill" if is_open else "fill",
            head,
            epoch,
            *_fields(database_key, fixed, generation, dimension, layout),
        ]
        for shard, pointer in zip(layout.numbers, pointers, strict=True):
            if pointer is not None:
                args += [f"m:{shard}", pointer.encode()]
        filled: int = await STATE.run(self._redis, [self._keys.state(collection_id)], args)
        if filled < 0:
            raise Unavailable(f"Collection {collection_id} was restored meanwhile, in a later epoch")
        return filled

    async def drop_unreadable(self, collection_id: str, database_key: str) -> dict[str, bytes]:
        """Removes the fields of a state that cannot be read, so that they are filled in like lost ones; returns them
        with the values that they had. `database_key` is the database that has the collection's row.
        """
        call = ("HMGET", self._keys.state(collection_id), *checked_fields())
        values = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        found = unreadable_fields(dict(zip(checked_fields(), values, strict=True)), database_key)
        if found:
            args: list[Argument] = ["drop", *(part for pair in found.items() for part in pair)]
            await STATE.run(self._redis, [self._keys.state(collection_id)], args)
        return found

    async def drop_unreadable_of_shards(self, collection_id: str) -> dict[str, bytes]:
        """Removes the fields of the state's shards that cannot be read and can be made again; returns them with the
        values that they had.
        """
        key = self._keys.state(collection_id)
        found = unreadable_shard_fields(
            await retry_idempotent(lambda: command(self._redis, "HGETALL", key), writes=False)
        )
        if found:
            args: list[Argument] = ["drop", *(part for pair in found.items() for part in pair)]
            await STATE.run(self._redis, [key], args)
        return found

    async def clear(self, collection_id: str) -> None:
        """Removes what is left of a state that cannot be given back its fields. Raises Unavailable when it has all of
        them: another log service has restored it.
        """
        if not await STATE.run(self._redis, [self._keys.state(collection_id)], ["clear", *required_fields()]):
            raise Unavailable(f"The state of collection {collection_id} was restored meanwhile")

    async def raise_heads(self, heads: Mapping[str, int], epoch: int = 0) -> None:
        """Makes each collection's head and epoch at least these. Collections that are not there stay so."""
        heads_by_key = {self._keys.state(collection_id): head for collection_id, head in heads.items()}
        await STATE.run_many(self._redis, [([key], ["head", head, epoch]) for key, head in heads_by_key.items()])

    async def exists(self, collection_id: str) -> bool:
        """Whether there is a state of this id, be it that of a deleted collection or an orphan."""
        state = self._keys.state(collection_id)
        return bool(await retry_idempotent(lambda: command(self._redis, "EXISTS", state), writes=False))

    async def raise_generation(self, collection_id: str, generation: int) -> bool:
        """Makes the state's generation at least this; False when there is no such collection."""
        return bool(await STATE.run(self._redis, [self._keys.state(collection_id)], ["generation", generation]))

    async def want_shards(self, collection_id: str, shards: int) -> None:
        """Notes that the collection shall have so many shards at least; its job REBUILD makes them."""
        await STATE.run(self._redis, [self._keys.state(collection_id)], ["want", shards])

    async def mark_deleted(self, collection_ids: Iterable[str]) -> None:
        """Marks these collections: from now on every append and read finds them gone."""
        await STATE.run_many(self._redis, [([self._keys.state(cid)], ["delete"]) for cid in collection_ids])

    async def collect(self, collection_id: str) -> None:
        """Removes everything that Redis holds of a deleted collection but its remembered requests, which expire."""
        state = self._keys.state(collection_id)
        layouts = await retry_idempotent(lambda: command(self._redis, "HMGET", state, "layout", "next"), writes=False)
        shards = {
            shard for layout in layouts if is_whole({"layout": layout}) for shard in Layout.decode(layout).numbers
        }
        shards |= {shard async for shard in self._shards_of(state)}
        streams = [self._keys.log(collection_id, shard) for shard in shards]
        doomed = [state, self._keys.metadata_keys(collection_id), self._keys.substitutes(collection_id), *streams]
        await retry_idempotent(lambda: command(self._redis, "UNLINK", *doomed), writes=True)

    async def _shards_of(self, state: str) -> AsyncIterator[int]:
        """The shards that fields of the state tell of: they are found, too, where a layout cannot be read."""
        fields = await retry_idempotent(lambda: command(self._redis, "HKEYS", state), writes=False)
        for field in fields:
            if (match := _OF_SHARD.fullmatch(field)) is not None:
                yield int(match[1])

    async def owners(self) -> AsyncIterator[Owner]:
        """The owner of every state that is there, in no order, some perhaps twice."""
        cursor = 0
        while True:
            with translated_errors():
                raw, found = await command(
                    self._redis, "SCAN", cursor, "MATCH", self._keys.every_state, "COUNT", SCAN_COUNT
                )
                names = [key.decode() for key in found]
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for name in names:
                        pipeline.hmget(name, ["db", "created", "family"])
                    rows = await pipeline.execute()
            for name, (database, created, family) in zip(names, rows, strict=True):
                # One that cannot be read is no orphan's yet: if there is a row, it is restored.
                if is_whole({"db": database, "created": created}):
                    age_s = time.time() - float(created)
                    yield Owner(
                        self._keys.collection_of_state(name), database.decode(), age_s, (family or b"").decode()
                    )
            cursor = int(raw)
            if cursor == 0:
                return


def _fields(
    database_key: str, fixed: Mapping[str, Any], generation: int | None, dimension: int | None, layout: Layout
) -> list[Argument]:
    """Fields and values that a state has from its first moment, but the head."""
    fields: list[Argument] = [] if generation is None else ["gen", generation]
    fields += ["db", database_key, "config", orjson.dumps(dict(fixed))]
    fields += ["layout", layout.encode(), "laid_s", f"{time.time():.3f}"]
    fields += ["backlog_ops", 0, "backlog_bytes", 0, "created", f"{time.time():.3f}"]
    return fields if dimension is None else [*fields, "dim", dimension]
