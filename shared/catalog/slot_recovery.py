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

from shared.catalog.image_model import CatalogImage, DatabaseImage
from shared.catalog.pending import Observation, PendingChanges
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

    async def observe(self) -> Observed:
        """The slots as they are before the bucket is read."""
        names = await self._hash(self._keys.tenants)
        slots = [TENANTS, *(Slot(tenant=name) for name in names)]
        return dict(zip(slots, await self._pending.observe(slots), strict=True))

    async def put_back(self, observed: Observed, stored: CatalogImage) -> PutBack:
        """Puts back what is missing of what the bucket has (`stored`), and resource names and places in the order that
        rows in Redis tell of.
        """
        done = PutBack()
        await self._tenants(observed[TENANTS], stored, done)
        databases: dict[str, list[DatabaseImage]] = {}
        for database in stored.databases:
            databases.setdefault(database.tenant, []).append(database)
        for slot, seen in observed.items():
            if slot.tenant is not None:
                await self._databases(slot.tenant, seen, databases.get(slot.tenant, ()), done)
        return done

    async def _tenants(self, seen: Observation, stored: CatalogImage, done: PutBack) -> None:
        rows, pending = await self._hash(self._keys.tenants), {row.id for row in seen.rows}
        owners = await self._hash(self._keys.resources)
        for tenant in stored.tenants:
            if tenant.name not in rows and tenant.name not in pending:
                reply = await self._scripts.tenants("recover", seen.version, tenant.name, tenant.row)
                done.add(reply, f"tenant {tenant.name}")
                done.again = done.again or reply == b"OK"
        for name, row in rows.items():
            resource = orjson.loads(row)["resource_name"]
            if resource is not None and resource not in owners:
                reply = await self._scripts.tenants("recover", seen.version, name, row)
                done.add(reply, f"resource name {resource} of tenant {name}")

    async def _databases(self, tenant: str, seen: Observation, stored: Iterable[DatabaseImage], done: PutBack) -> None:
        rows, pending = await self._hash(self._keys.databases(tenant)), {row.id for row in seen.rows}
        call = ("ZRANGE", self._keys.database_order(tenant), 0, -1)
        places = {name.decode() for name in await retry_idempotent(lambda: command(self._redis, *call), writes=False)}
        missing: dict[str, bytes | str] = {name: row for name, row in rows.items() if name not in places}
        for database in stored:
            own = rows.get(database.name)
            if own is None or orjson.loads(own)["key"] != database.key:
                missing[database.name] = database.row
        for name, row in missing.items():
            if name not in pending:
                reply = await self._scripts.databases(tenant, "recover", seen.version, name, row)
                done.add(reply, f"database {name} of tenant {tenant}")

    async def _hash(self, key: str) -> dict[str, bytes]:
        found = await retry_idempotent(lambda: command(self._redis, "HGETALL", key), writes=False)
        return {name.decode(): value for name, value in found.items()}
