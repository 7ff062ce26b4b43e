"""Slots of the catalog: the rows that one script can change together, and that have a version in common.

There are three kinds: all tenants; the databases of one tenant; the collections of one database. Every script that
changes rows of a slot raises the slot's *version* by one and notes the changed rows as *pending*, in the same step.
Versions put all changes of a slot, and all readings of it, in one order; slots are not ordered among each other, but a
row is only made where its parent is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.catalog.model import Database
from shared.redis.keys import Keys


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot: of a database's collections (`database` is its key), of a tenant's databases (`tenant` is its name), or
    of the tenants (neither).
    """

    tenant: str | None = None
    database: str | None = None

    def keys(self, keys: Keys) -> list[str]:
        """The slot's keys in Redis: rows, version, pending rows, epoch and, but for tenants, the order of creation."""
        if self.database is not None:
            key = self.database
            versions = [keys.database_version(key), keys.database_pending(key), keys.database_epoch(key)]
            return [keys.rows(key), *versions, keys.order(key)]
        if self.tenant is not None:
            name = self.tenant
            versions = [keys.tenant_version(name), keys.tenant_pending(name), keys.tenant_epoch(name)]
            return [keys.databases(name), *versions, keys.database_order(name)]
        return [keys.tenants, keys.catalog_version, keys.catalog_pending, keys.catalog_epoch]


TENANTS: Final = Slot()

Path = tuple[Slot, ...]
"""A slot and those above it, the lowest first. Read in this order, a parent's end is seen whenever its children's is.
"""


def path_of_tenant(name: str) -> Path:
    """The path to the databases of a tenant."""
    return (Slot(tenant=name), TENANTS)


def path_of(tenant: str, database_key: str) -> Path:
    """The path to the collections of a tenant's database."""
    return (Slot(database=database_key), Slot(tenant=tenant), TENANTS)


def path_to(database: Database) -> Path:
    """The path to the collections of a database."""
    return path_of(database.tenant, database.key)
