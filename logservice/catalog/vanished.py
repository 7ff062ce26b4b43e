"""Keeps a snapshot from forgetting tenants, databases and collections that Redis has lost with their names and places
in the order: nothing in Redis shows that, and a snapshot without them would be the end of them.
"""

from __future__ import annotations

from shared.catalog.image import CatalogImage
from shared.catalog.losses import Losses
from shared.catalog.scripts import TENANTS_NOTE
from shared.errors import Unavailable


class Vanished:
    """Compares each image with the one before it."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._doubted: set[str] = set()
        """Collections that have vanished, and whose databases were noted for it."""
        self._rows_doubted: set[tuple[str, str]] = set()
        """Tenants and databases that have vanished, and for which tenants were noted."""

    async def require_none(self, before: CatalogImage, image: CatalogImage) -> None:
        """Raises Unavailable when collections of `before` are gone and nobody has deleted them, until their databases
        were recovered. What is not back then was deleted long ago: the bucket says so, too.
        """
        await self._require_tenants(before, image)
        there = image.graves.keys() | {each.id for each in image.collections}
        gone: dict[str, set[str]] = {}
        for each in before.collections:
            if each.id not in there:
                gone.setdefault(each.database_key, set()).add(each.id)
        for database_key in list(gone):
            gone[database_key] &= await self._losses.lacking(database_key, gone[database_key])
        lacking = {key: ids for key, ids in gone.items() if ids}
        for database_key, ids in lacking.items():
            if not ids <= self._doubted:
                await self._losses.note(database_key)
                self._doubted |= ids
        if lacking.keys() & set(await self._losses.noted.some()):
            raise Unavailable("A part of the catalog was lost and is being restored")

    async def _require_tenants(self, before: CatalogImage, image: CatalogImage) -> None:
        """Raises Unavailable when tenants or databases of `before` are gone, until the tenants were recovered. What is
        not back then was removed long ago.
        """
        vanished = _upper_rows(before) - _upper_rows(image)
        if not vanished <= self._rows_doubted:
            await self._losses.note(TENANTS_NOTE)
        self._rows_doubted = vanished
        if vanished and TENANTS_NOTE in await self._losses.noted.some():
            raise Unavailable("A part of the catalog was lost and is being restored")


def _upper_rows(image: CatalogImage) -> set[tuple[str, str]]:
    """The names of the tenants, and the tenants and keys of the databases."""
    tenants = {("", tenant.name) for tenant in image.tenants}
    return tenants | {(database.tenant, database.key) for database in image.databases}
