"""Rows of the catalog that cannot be read count as lost: they are named, and the bucket's take their place.

1. Rows that cannot be read are looked for.
2. The catalog is read in the bucket. It has every change of them that was acknowledged.
3. Each is replaced, in one step with a look that it is the same still (`shared.catalog.garbled_rows`).

A row that was changed a moment before may be on its way into the bucket; it is waited for. What the bucket knows
nothing of stays as it is, and is named: it may be all that there is of a collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from shared.catalog import Catalog
from shared.catalog.damage import Damage, DamageKind
from shared.catalog.garbled_rows import ANY_VERSION, NOBODY_HAS, GarbledRow
from shared.catalog.image import CatalogImage
from shared.catalog.row_names import row_name
from shared.catalog.slots import TENANTS, Slot
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

PENDING_S_MAX: Final = 60.0
"""Longest wait for an entry of the journal that may have a row which cannot be read, in seconds."""
WAITING: Final = "it is restored when its last change is in the bucket, or does not come there"
UNREAD: Final = "it is restored when the catalog in the bucket can be read"
VALUE_BYTES_MAX: Final = 200
"""Most bytes of a row that are shown."""

log = get_logger(__name__)


class StoredRows:
    """The rows that an image has, and the versions of their slots."""

    def __init__(self, image: CatalogImage) -> None:
        self.versions: dict[Slot, int] = {TENANTS: image.version}
        self.rows: dict[tuple[Slot, str], str] = {}
        for tenant in image.tenants:
            self.rows[TENANTS, tenant.name] = tenant.row
            self.versions[Slot(tenant=tenant.name)] = tenant.version
        for database in image.databases:
            self.rows[Slot(tenant=database.tenant), database.name] = database.row
            self.versions[Slot(database=database.key)] = database.version
        for collection in image.collections:
            self.rows[Slot(database=collection.database_key), collection.id] = collection.row


class GarbledRowRecovery:
    """The recovery in one Redis. Everything raises Unavailable."""

    def __init__(self, catalog: Catalog, clock: Clock, by: str = "logservice") -> None:
        self._catalog = catalog
        self._clock = clock
        self._by = by
        self._since: dict[GarbledRow, float] = {}
        """When rows were found that have to wait (monotonic)."""

    async def find(self, slots: Iterable[Slot]) -> list[GarbledRow]:
        """The rows of the slots that cannot be read. To be called before the bucket is read."""
        return [row for slot in slots for row in (await self._catalog.garbled.survey(slot)).garbled]

    async def mend(self, found: Sequence[GarbledRow], image: CatalogImage | None) -> list[str]:
        """Puts the rows of the image in the place of these; returns the names of those that are whole again. The others
        are in the registry of damage.
        """
        stored = StoredRows(image) if image and found else None
        mended: list[str] = []
        for row in found:
            name = row_name(row.slot, row.id)
            log.error("row_unreadable", row=name, value=repr(row.value[:VALUE_BYTES_MAX]))
            doing = UNREAD if stored is None else await self._mend(row, stored)
            if doing:
                await self._report(name, row, doing)
            else:
                self._since.pop(row, None)
                await self._catalog.damages.clear([name])
                mended.append(name)
        if mended:
            log.error("garbled_rows_restored", rows=mended)
        return mended

    async def _mend(self, row: GarbledRow, stored: StoredRows) -> str:
        """The steps that are taken about the row, in words; empty when it is whole again, or gone."""
        known = stored.rows.get((row.slot, row.id))
        version = stored.versions.get(row.slot, 0)
        if not row.has_id:  # the name itself was damaged: the row is missing under its name, and comes back there
            return "" if await self._catalog.garbled.mend(row, None, ANY_VERSION) else WAITING
        if known is not None and await self._catalog.garbled.mend(row, known, version):
            return ""
        is_pending = await self._catalog.garbled.is_pending(row, version)
        if known is None and not is_pending:
            return NOBODY_HAS
        now_s = self._clock.monotonic()
        if now_s - self._since.setdefault(row, now_s) < PENDING_S_MAX:
            return WAITING
        return "" if await self._catalog.garbled.mend(row, known, ANY_VERSION) else WAITING

    async def _report(self, name: str, row: GarbledRow, doing: str) -> None:
        shown = repr(row.value[:VALUE_BYTES_MAX])
        collection = row.id if row.slot.database is not None else ""
        what = f"could not be read: {shown}"
        damage = Damage(name, DamageKind.ROW, what, doing, self._by, self._clock.now(), collection)
        await self._catalog.damages.report(damage)
