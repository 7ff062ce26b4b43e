"""Puts right what can be seen to be wrong in a database's rows, names, order and version, before what is missing of
them is put back (`logservice.restoring.database_recovery`).
"""

from __future__ import annotations

from logservice.restoring.garbled_rows import GarbledRowRecovery
from shared.catalog import Catalog, Database
from shared.catalog.garbled_rows import Survey
from shared.catalog.image import CatalogImage
from shared.catalog.slots import Slot
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

log = get_logger(__name__)


class RowRecovery:
    """The recovery in one Redis. Everything raises Unavailable."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._garbled = GarbledRowRecovery(catalog, clock)

    async def put_right(
        self, database: Database, survey: Survey, stored: CatalogImage | None, *, is_open: bool
    ) -> None:
        """`survey` is of the database's rows, and older than `stored`, the catalog as the bucket has it; None when it
        cannot be read. A version that was lost is left out where Redis is not `is_open`: it may have gone back.
        """
        slot = Slot(database=database.key)
        await self._garbled.mend(survey.garbled, stored)
        if survey.garbled:  # what leads to a row that was mended is right
            survey = await self._catalog.garbled.survey(slot)
        tidied = await self._catalog.garbled.tidy(slot, survey)
        if tidied:
            log.error("rows_tidied", database=database.name, tenant=database.tenant, removed=tidied)
        if not is_open:
            await self._catalog.garbled.forget_version(slot)
        if stored is None or not is_open:
            return
        version = next((each.version for each in stored.databases if each.key == database.key), 0)
        if await self._catalog.garbled.advance(slot, version):
            log.error("slot_version_restored", database=database.name, tenant=database.tenant)
            await self._catalog.changes.count()  # a snapshot with it is due
