"""Pending rows: what the journal has still to say of each slot, read in Redis and cleared there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from shared.catalog.image_model import CollectionImage, DatabaseImage, TenantImage, collection_image
from shared.catalog.journal_entry import SlotChanges
from shared.catalog.readable import UNREADABLE, can_be_read
from shared.catalog.reading import text_of
from shared.catalog.scripts import CatalogScripts, require_not_later
from shared.catalog.slots import Slot
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX, Argument, Script

JOURNAL: Final = Script("shared.catalog", "journal", uses=["restoring"])
PENDING_KEY: Final = 2
"""The place of the hash with the pending rows among a slot's keys."""
STATE_FIELDS: Final = ("head", "dim", "config", "layout")
"""The fields of a collection's state that its image needs."""


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A row that was changed by the slot's change number `version`; None for `row` when it is gone, and for `order`
    when it has no place in the order of creation.
    """

    id: str
    version: int
    row: bytes | None
    order: float | None


@dataclass(frozen=True, slots=True)
class Observation:
    """The pending rows of a slot, all at its version."""

    slot: Slot
    version: int
    rows: tuple[PendingRow, ...]

    def without(self, rows: Set[tuple[Slot, str]]) -> Observation:
        """The observation of all rows but these."""
        return dataclasses.replace(self, rows=tuple(row for row in self.rows if (self.slot, row.id) not in rows))


class PendingChanges:
    """The pending rows of all slots in one Redis. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = CatalogScripts(redis, keys)

    async def observe(self, slots: Sequence[Slot]) -> list[Observation]:
        """The pending rows of these slots, which are read in this order, each at one moment."""
        replies = await JOURNAL.run_many(self._redis, [(slot.keys(self._keys), ["observe"]) for slot in slots])
        for slot, reply in zip(slots, replies, strict=True):
            await self._forget([name for name in reply[1::4] if text_of(name).encode() != name], slot)
        return [_observation(slot, reply) for slot, reply in zip(slots, replies, strict=True)]

    async def _forget(self, names: Sequence[bytes], slot: Slot) -> None:
        """Removes notes of which the name was damaged, so that it is nobody's."""
        if names:
            key = slot.keys(self._keys)[PENDING_KEY]
            await retry_idempotent(lambda: command(self._redis, "HDEL", key, *names), writes=True)

    async def clear(self, observed: Sequence[Observation]) -> None:
        """Says that the journal has these rows. What was changed again since stays pending."""
        calls: list[tuple[Sequence[str], Sequence[Argument]]] = []
        for each in observed:
            for start in range(0, len(each.rows), PIPELINE_MAX):
                args: list[Argument] = ["clear"]
                for row in each.rows[start : start + PIPELINE_MAX]:
                    args += [row.id, row.version]
                calls.append((each.slot.keys(self._keys), args))
        await JOURNAL.run_many(self._redis, calls)

    async def restore(self, versions: Sequence[tuple[Slot, int]], epoch: int) -> None:
        """Gives slots at least these versions. Nothing is pending in them afterwards: the snapshot of this epoch has
        all of them. Raises Unavailable when one was restored in this epoch or a later one, which is left as it is.
        """
        calls: list[tuple[Sequence[str], Sequence[Argument]]] = [
            (slot.keys(self._keys), ["restore", version, epoch]) for slot, version in versions
        ]
        for reply in await JOURNAL.run_many(self._redis, calls):
            require_not_later(reply)

    async def has(self, slot: Slot, row: str) -> bool:
        """Whether this row of the slot is pending."""
        key = slot.keys(self._keys)[PENDING_KEY]
        return bool(await retry_idempotent(lambda: command(self._redis, "HEXISTS", key, row), writes=False))

    async def any_of(self, slots: Sequence[Slot]) -> list[Slot]:
        """Those of the slots that have pending rows."""
        found: list[Slot] = []
        for start in range(0, len(slots), PIPELINE_MAX):
            some = slots[start : start + PIPELINE_MAX]
            replies = await retry_idempotent(lambda some=some: self._exist(some), writes=False)  # type: ignore[misc] # no type for a lambda with a default
            found += [slot for slot, there in zip(some, replies, strict=True) if there]
        return found

    async def _exist(self, slots: Sequence[Slot]) -> list[int]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for slot in slots:
                pipeline.exists(slot.keys(self._keys)[PENDING_KEY])
            replies: list[int] = await pipeline.execute()
        return replies

    async def number(self) -> int:
        """A new number for an entry of the journal; it counts as a change of the catalog."""
        return int(await self._scripts.tenants("changed"))  # a script: a full server refuses no deletion

    async def described(self, observed: Sequence[Observation]) -> tuple[list[SlotChanges], set[tuple[Slot, str]]]:
        """The rows as the journal has them; of collections also what outlives the log of their states. A row without
        a state is left out, as snapshots do: nothing could be restored of it. Left out, too, and returned, are rows
        that cannot be read, or whose states cannot: they stay pending until the log service has put them right.
        """
        unreadable = {
            (each.slot, row.id)
            for each in observed
            for row in each.rows
            if row.row is not None and not can_be_read(each.slot, row.row)
        }
        readable = [each.without(unreadable) for each in observed]
        collections, of_states = await self._collections([each for each in readable if each.slot.database is not None])
        readable = [each.without(of_states) for each in readable]
        return [_described(each, collections) for each in readable if each.rows], unreadable | of_states

    async def _collections(
        self, observed: Sequence[Observation]
    ) -> tuple[dict[str, CollectionImage], set[tuple[Slot, str]]]:
        """The images of the living collections, by id; and the rows whose states cannot be read."""
        unreadable: set[tuple[Slot, str]] = set()
        living = [(each.slot.database or "", row) for each in observed for row in each.rows if row.row is not None]
        images: dict[str, CollectionImage] = {}
        for start in range(0, len(living), PIPELINE_MAX):
            some = living[start : start + PIPELINE_MAX]
            ids = [row.id for _, row in some]
            states = await retry_idempotent(lambda ids=ids: self._states(ids), writes=False)  # type: ignore[misc] # no type for a lambda with a default
            for (database, row), state, keys in zip(some, states[0::2], states[1::2], strict=True):
                if state[0] is not None:
                    try:
                        images[row.id] = collection_image(row.id, database, row.row or b"", state, keys)
                    except UNREADABLE:
                        unreadable.add((Slot(database=database), row.id))
        return images, unreadable

    async def _states(self, ids: Sequence[str]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for collection_id in ids:
                pipeline.hmget(self._keys.state(collection_id), STATE_FIELDS)
                pipeline.smembers(self._keys.metadata_keys(collection_id))
            replies: list[Any] = await pipeline.execute()
        return replies


def _observation(slot: Slot, reply: Sequence[Any]) -> Observation:
    version, *rest = reply
    rows = tuple(
        PendingRow(text_of(name), int(changed), row, None if order is None else float(order))
        for name, changed, row, order in zip(rest[0::4], rest[1::4], rest[2::4], rest[3::4], strict=True)
        if text_of(name).encode() == name
    )
    return Observation(slot, int(version), rows)


def _described(observed: Observation, collections: dict[str, CollectionImage]) -> SlotChanges:
    slot, living = observed.slot, {row.id: row.row.decode() for row in observed.rows if row.row is not None}
    tenants: list[TenantImage] = []
    databases: list[DatabaseImage] = []
    found: list[CollectionImage] = []
    if slot.database is not None:
        found = [collections[collection_id] for collection_id in living if collection_id in collections]
    elif slot.tenant is not None:
        databases = [DatabaseImage(slot.tenant, name, orjson.loads(row)["key"], row) for name, row in living.items()]
    else:
        tenants = [TenantImage(name, row) for name, row in living.items()]
    return SlotChanges(
        observed.version,
        slot.tenant,
        slot.database,
        tenants,
        databases,
        found,
        gone=[row.id for row in observed.rows if row.row is None],
        order={row.id: row.order for row in observed.rows if row.order is not None},
    )
