"""Puts back what Redis lost alone of the names, the rows and the order of databases' collections: from each other, and
from the bucket.

1. The databases that lack something are found, going by a reading of the bucket that may be old.
2. Of each it is observed how often deleted collections were forgotten in it.
3. The bucket is read. It lacks every collection that had been forgotten then.
4. The script that puts a row back compares: when collections were forgotten since, the row may be that of one of them,
   for this process may have slept. Then the database is looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import Counter

from logservice.restoring.tenant_recovery import ReadStored
from shared.catalog import Catalog, Database
from shared.catalog.image import CatalogImage
from shared.process.telemetry import get_logger

TURNS_MAX: Final = 4
"""Most tries in a row; collections are forgotten every few seconds at most."""

RECOVERED: Final = Counter(
    "polychrome_logservice_recovered_databases_total",
    "Databases of which Redis had lost names, rows or the order alone.",
)

log = get_logger(__name__)


def rows_by_database(stored: CatalogImage | None) -> dict[str, dict[str, str]]:
    """The rows of collections in an image of the catalog, by their ids, of each database, by its key."""
    rows: dict[str, dict[str, str]] = {}
    for each in stored.collections if stored else ():
        rows.setdefault(each.database_key, {})[each.id] = each.row
    return rows


class MissingRows:
    """The recovery in one Redis; `read_stored` reads the bucket. Everything raises Unavailable."""

    def __init__(self, catalog: Catalog, read_stored: ReadStored) -> None:
        self._catalog = catalog
        self._read_stored = read_stored

    async def recover(self, database: Database, known: Mapping[str, str]) -> bool:
        """Puts back what is missing of the database; `known` are the rows, by id, that the bucket had lately. False
        when it is still to be looked at, because collections were forgotten meanwhile.
        """
        for _ in range(TURNS_MAX):
            if not await self._lacks(database, known):
                return True
            seen = await self._catalog.collections.forgotten(database)  # before the bucket is read
            known = rows_by_database(await self._read_stored()).get(database.key, {})
            there = await self._catalog.collections.recover(database, known, seen)
            if there is not None:
                whole = await self._catalog.losses.agrees(database.key)
                RECOVERED.inc()
                names = {"database": database.name, "tenant": database.tenant}
                log.error("rows_restored", **names, collections=len(there), whole=whole)
                return True
        return False

    async def _lacks(self, database: Database, known: Mapping[str, str]) -> bool:
        losses = self._catalog.losses
        return not await losses.agrees(database.key) or bool(await losses.lacking(database.key, known))
