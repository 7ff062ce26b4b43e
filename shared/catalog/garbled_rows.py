"""Rows of the catalog in Redis that cannot be read, and versions of slots that were lost: found, and put right.

A row is compared with what was found, and replaced in the same step. Nobody changes a row that cannot be read, so what
the bucket has of it, read after it was found, is what it was, unless a change of it is still pending: then an entry of
the journal may be on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from shared.catalog.pending import JOURNAL, PENDING_KEY
from shared.catalog.readable import read_row
from shared.catalog.reading import text_of
from shared.catalog.scripts import CatalogScripts
from shared.catalog.slots import Slot
from shared.errors import Garbled
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import Argument

SCAN_COUNT: Final = 500
ANY_VERSION: Final = -1
"""In the place of a version: whatever is pending of the row, it will not be in the journal."""


NOBODY_HAS: Final = "the bucket knows nothing of it: it is left as it is, and snapshots are without it"
"""The text by which the registry of damage says so of a row."""


class GarbledRow(NamedTuple):
    """A row that cannot be read: its slot, the name or id that it is stored under, its bytes."""

    slot: Slot
    field: bytes
    value: bytes

    @property
    def id(self) -> str:
        """The row's name or id. One that is no text any more is shown with marks in it."""
        return text_of(self.field)

    @property
    def has_id(self) -> bool:
        """Whether the name or id is text."""
        return self.id.encode() == self.field


class Survey(NamedTuple):
    """All rows of a slot: those that cannot be read; and of collections the names by their ids, and the outputs of
    functions by their inputs.
    """

    garbled: list[GarbledRow]
    names: dict[str, str]
    inputs: dict[str, str]

    def note(self, row: str, fields: Mapping[str, Any]) -> None:
        """Notes a row that can be read."""
        if "name" in fields:
            self.names[row] = fields["name"]
            for fed in (fields.get("function") or {}).get("inputs", ()):
                self.inputs[fed] = row


class GarbledRows:
    """The rows in one Redis. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = CatalogScripts(redis, keys)

    async def survey(self, slot: Slot) -> Survey:
        """Looks at all rows of the slot."""
        key, cursor = slot.keys(self._keys)[0], b"0"
        garbled: dict[bytes, GarbledRow] = {}
        found = Survey([], {}, {})
        while True:
            call = ("HSCAN", key, cursor, "COUNT", SCAN_COUNT)
            cursor, pairs = await retry_idempotent(lambda call=call: command(self._redis, *call), writes=False)  # type: ignore[misc] # no type for a lambda with a default
            for field, value in pairs.items():
                row = GarbledRow(slot, field, value)
                try:
                    found.note(row.id, read_row(slot, row.id, value))
                except Garbled:
                    garbled[field] = row
                if not row.has_id:
                    garbled[field] = row
            if int(cursor) == 0:
                return found._replace(garbled=list(garbled.values()))

    async def tidy(self, slot: Slot, survey: Survey) -> list[str]:
        """Removes from the names and the order of a database what leads to no row, or to one of another name, and
        notes again which function has which input; what that was, in words. `survey` is of a moment ago.
        """
        key, done = slot.database or "", list[str]()
        names = await retry_idempotent(lambda: command(self._redis, "HGETALL", self._keys.names(key)), writes=False)
        for name, collection_id in names.items():
            wrong = survey.names.get(text_of(collection_id)) != text_of(name)
            if wrong and await self._changed(key, "untie", name, collection_id):
                done.append(f"name {text_of(name)}, which led to {text_of(collection_id)}")
        order = ("ZRANGE", self._keys.order(key), 0, -1)
        for collection_id in await retry_idempotent(lambda: command(self._redis, *order), writes=False):
            if text_of(collection_id) not in survey.names and await self._changed(key, "unplace", collection_id):
                done.append(f"place of {text_of(collection_id)}")
        fed_key = self._keys.functions(key)
        functions = await retry_idempotent(lambda: command(self._redis, "HGETALL", fed_key), writes=False)
        for fed, output in survey.inputs.items():
            if functions.get(fed.encode()) != output.encode() and await self._changed(key, "refeed", fed, output):
                done.append(f"function of {fed}")
        return done

    async def _changed(self, database_key: str, verb: str, *args: Argument) -> bool:
        return await self._scripts.collections(database_key, verb, *args) == [b"OK", 1]

    async def mend(self, garbled: GarbledRow, row: bytes | str | None, version: int) -> bool:
        """Puts a row in the place of the garbled one, if that is there still; None: removes it. False, and nothing
        happens, when it was changed after this version of its slot, and the journal may not know that yet.
        """
        args: list[Argument] = ["mend", garbled.field, garbled.value, row or b"", version]
        return bool(await JOURNAL.run(self._redis, garbled.slot.keys(self._keys), args) != b"PENDING")

    async def is_pending(self, garbled: GarbledRow, version: int) -> bool:
        """Whether the row was changed after this version of its slot, and the journal may not know that yet."""
        key = garbled.slot.keys(self._keys)[PENDING_KEY]
        changed = await retry_idempotent(lambda: command(self._redis, "HGET", key, garbled.field), writes=False)
        return changed is not None and changed.isdigit() and int(changed) > version

    async def advance(self, slot: Slot, version: int) -> bool:
        """Raises the slot's version to this one at least; one that was lost becomes later than every change that was
        made. Returns whether it was too low, or lost.
        """
        return bool(await JOURNAL.run(self._redis, slot.keys(self._keys), ["advance", version]))

    async def forget_version(self, slot: Slot) -> bool:
        """Removes the slot's version if it cannot be read. For a Redis that is not open, and may have gone back: only
        the bucket's version tells then which rows are the later ones. Returns whether that was so.
        """
        return bool(await JOURNAL.run(self._redis, slot.keys(self._keys), ["forget"]))
