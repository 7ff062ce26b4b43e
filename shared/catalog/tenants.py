"""Tenants: rows in one hash of the whole cluster."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

import orjson
from redis.asyncio import Redis

from shared import limits
from shared.catalog.journal import Journal, after_commit
from shared.catalog.losses import Losses
from shared.catalog.model import Tenant
from shared.catalog.quotas import quota_exceeded
from shared.catalog.readable import tenant_row
from shared.catalog.reading import CatalogReader, text_of
from shared.catalog.removal import Removal
from shared.catalog.scripts import TENANTS_NOTE, CatalogScripts
from shared.catalog.slots import TENANTS, path_of_tenant
from shared.errors import AlreadyExists, Garbled, NotFound, Unavailable
from shared.redis.keys import Keys

RESET_TRIES: Final = 32
"""Tries of a creation, which begins anew when its name was taken by a removed tenant that it had to clear away."""


class Tenants:
    """The tenants of the cluster, `tenants_max` of them at most. Everything raises Unavailable while Redis is away or
    not restored.
    """

    def __init__(self, redis: Redis, keys: Keys, journal: Journal, tenants_max: int = limits.TENANTS_MAX) -> None:
        self._tenants_max = tenants_max
        self._keys = keys
        self._journal = journal
        self._reader = CatalogReader(redis, keys)
        self._scripts = CatalogScripts(redis, keys)
        self._removal = Removal(redis, keys, journal)
        self._losses = Losses(redis, keys)

    async def create(self, name: str) -> None:
        """Raises AlreadyExists, QuotaExceeded."""
        row = orjson.dumps({"key": uuid.uuid4().hex, "resource_name": None})
        await self._losses.require_tenant(name)
        async with self._journal.change(path_of_tenant(name)):  # with its databases: those of a removed one are gone
            for _ in range(RESET_TRIES):
                match await self._scripts.tenants("add", name, row, self._tenants_max):
                    case b"OK":
                        return
                    case b"FULL":
                        raise quota_exceeded("Number of tenants", "Create tenant", self._tenants_max, self._tenants_max)
                    case b"EXISTS":
                        raise AlreadyExists(f"Tenant [{name}] already exists")
                await self._removal.clear_tenant(name)  # a reset is not through yet: finish it for this tenant
            raise Unavailable("The server is being reset")

    async def get(self, name: str) -> Tenant | None:
        """None when there is none of this name."""
        row = await self._reader.one("HGET", self._keys.tenants, name)
        if row is None:
            await self._losses.require_tenant(name)
            return None
        return (await self._readable({name: row}, None))[0]

    async def all(self, damaged: set[str] | None = None) -> list[Tenant]:
        """Every tenant, by name. Raises Garbled when the row of one cannot be read, unless `damaged` is given: then it
        is left out, and its name is there.
        """
        return await self._readable(await self._reader.all_values(self._keys.tenants), damaged)

    async def _readable(self, rows: Mapping[str, bytes], damaged: set[str] | None) -> list[Tenant]:
        """The tenants with these rows. `damaged` as for `all`."""
        found: list[Tenant] = []
        for name in sorted(rows):
            try:
                found.append(Tenant(name, tenant_row(name, rows[name])["resource_name"]))
            except Garbled:
                await self._losses.note(TENANTS_NOTE)
                if damaged is None:
                    raise
                damaged.add(name)
        return found

    async def delete(self, name: str) -> bool:
        """Deletes the tenant with its databases and their collections. False when there is none."""
        async with self._journal.change(path_of_tenant(name)):
            if await self.get(name) is None:
                return False
            await self._scripts.tenants("remove", name)
            with after_commit():
                await self._removal.clear_tenant(name)
            return True

    async def set_resource_name(self, name: str, value: str) -> bool:
        """Gives the tenant its resource name. False when it has another one, or when the value belongs to another
        tenant. Raises NotFound.
        """
        async with self._journal.change((TENANTS,)):
            outcome = await self._scripts.tenants("resource", name, value)
            if outcome == b"MISSING":
                raise NotFound(f"Tenant [{name}] not found")
            return bool(outcome == b"OK")

    async def find_by_resource_name(self, value: str) -> Tenant | None:
        """The tenant with this resource name."""
        name = await self._reader.one("HGET", self._keys.resources, value)
        found = None if name is None else await self.get(text_of(name))
        if name is not None and (found is None or found.resource_name != value):
            await self._losses.require_owner(value, name)
        return found
