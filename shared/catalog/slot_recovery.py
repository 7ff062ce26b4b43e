"""Puts back what Redis lost alone of the tenants and of their databases, and what the bucket has.

1. The slots are observed: each one's version, and what is pending in it for the journal.
2. The catalog is read in the bucket. It has every change up to that version that was not pending then.
3. A row that the bucket has, Redis has not, and that was not pending was lost, unless the slot was changed since: a
   process may have slept in between. So the script that puts it back compares the version.

A tenant that comes back has its databases compared in another turn: its slot was not observed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import orjson
from redis.asyncio import Redis

from shared.catalog.changes import Changes
from shared.catalog.garbled_rows import GarbledRows
from shared.catalog.image_model import CatalogImage, DatabaseImage
from shared.catalog.pending import Observation, PendingChanges
from shared.catalog.readable import UNREADABLE, can_be_read
from shared.catalog.reading import text_of
from shared.catalog.scripts import CatalogScripts
from shared.catalog.slots import TENANTS, Slot
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys

Observed = Mapping[Slot, Observation]
"""The slot of the tenants, and those of the databases of each tenant that there was."""


@dataclass
class PutBack:
    """Rows that were put back (`found`), with names for people. `taken`: databases whose name another one has got
    meanwhile. `again`: not everything was compared, or could be put back.
    """

    found: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    again: bool = False

    def add(self, reply: bytes, what: str) -> None:
        """Notes a script's reply about this row."""
        match reply:
            case b"OK":
                self.found.append(what)
            case b"TAKEN":
                self.taken.append(what)
            case b"LATER":
                self.again = True


class SlotRecovery:
    """The slots of tenants and of their databases in one Redis. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._pending = PendingChanges(redis, keys)
        self._scripts = CatalogScripts(redis, keys)
        self._garbled = GarbledRows(redis, keys)
        self._changes = Changes(redis, keys)

    async def observe(self) -> Observed:
        """The slots as they are before the bucket is read."""
        slots = await self.slots()
        return dict(zip(slots, await self._pending.observe(slots), strict=True))

    async def slots(self) -> list[Slot]:
        """The slot of the tenants, and those of the databases of each tenant that there is."""
        return [TENANTS, *(Slot(tenant=name) for name in await self._hash(self._keys.tenants))]

    async def put_back(self, observed: Observed, stored: CatalogImage, *, is_open: bool = True) -> PutBack:
        """Puts back what is missing of what the bucket has (`stored`), and resource names and places in the order that
        rows in Redis tell of. What leads nowhere in these is removed. Versions that were lost are put right first;
        in a Redis that is not `is_open` they are left out, for it may have gone back.
        """
        done = PutBack()
        await (self._advance(observed, stored, done) if is_open else self._forget(observed, done))
        await self._tenants(observed[TENANTS], stored, done)
        databases: dict[str, list[DatabaseImage]] = {}
        for database in stored.databases:
            databases.setdefault(database.tenant, []).append(database)
        for slot, seen in observed.items():
            if slot.tenant is not None:
                await self._databases(slot.tenant, seen, databases.get(slot.tenant, ()), done)
        return done

    async def _advance(self, observed: Observed, stored: CatalogImage, done: PutBack) -> None:
        versions = {Slot(tenant=tenant.name): tenant.version for tenant in stored.tenants}
        versions[TENANTS] = stored.version
        for slot in observed:
            if await self._garbled.advance(slot, versions.get(slot, 0)):
                done.found.append(
                    "the version of the tenants" if slot == TENANTS else f"the version of tenant {slot.tenant}"
                )
                done.again = True
        if await self._changes.restore(stored.changes):
            done.found.append("the number of changes")

    async def _forget(self, observed: Observed, done: PutBack) -> None:
        for slot in observed:
            if await self._garbled.forget_version(slot):
                done.again = True
        if await self._changes.forget():
            done.again = True

    async def _tenants(self, seen: Observation, stored: CatalogImage, done: PutBack) -> None:
        rows, pending = await self._hash(self._keys.tenants), {row.id for row in seen.rows}
        owners = await self._hash(self._keys.resources)
        for tenant in stored.tenants:
            if tenant.name not in rows and tenant.name not in pending:
                reply = await self._scripts.tenants("recover", seen.version, tenant.name, tenant.row)
                done.add(reply, f"tenant {tenant.name}")
                done.again = done.again or reply == b"OK"
        resources = {name: _member(row, "resource_name") for name, row in rows.items()}
        for resource, owner in owners.items():
            name = text_of(owner)
            if name not in resources or (resources[name] != resource and can_be_read(TENANTS, rows[name])):
                reply = await self._scripts.tenants("unowned", seen.version, resource, owner)
                done.add(reply, f"resource name {resource}, which led to {name}")
                done.again = True
        for name, row in rows.items():
            owned = resources[name]
            if owned is not None and owned not in owners:
                reply = await self._scripts.tenants("recover", seen.version, name, row)
                done.add(reply, f"resource name {owned} of tenant {name}")

    async def _databases(self, tenant: str, seen: Observation, stored: Iterable[DatabaseImage], done: PutBack) -> None:
        rows, pending = await self._hash(self._keys.databases(tenant)), {row.id for row in seen.rows}
        call = ("ZRANGE", self._keys.database_order(tenant), 0, -1)
        ordered = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        places = {text_of(name) for name in ordered}
        missing: dict[str, bytes | str] = {name: row for name, row in rows.items() if name not in places}
        for database in stored:
            own = rows.get(database.name)
            if own is None or _member(own, "key") not in (None, database.key):
                missing[database.name] = database.row
        for name, row in missing.items():
            if name not in pending:
                reply = await self._scripts.databases(tenant, "recover", seen.version, name, row)
                done.add(reply, f"database {name} of tenant {tenant}")
        known = rows.keys() | missing.keys() | pending
        for name in ordered:
            if text_of(name) not in known and await self._scripts.databases(tenant, "unplace", name):
                done.found.append(f"the order of tenant {tenant}, which had {text_of(name)}")

    async def _hash(self, key: str) -> dict[str, bytes]:
        found = await retry_idempotent(lambda: command(self._redis, "HGETALL", key), writes=False)
        return {text_of(name): value for name, value in found.items()}


def _member(row: bytes, name: str) -> str | None:
    """A member of a row; None also for a row that cannot be read, which is somebody else's to mend."""
    try:
        value = orjson.loads(row)[name]
    except UNREADABLE:
        return None
    return value if isinstance(value, str) else None
