"""Recovers tenants, their resource names and their databases that Redis lost alone, from the bucket: nothing in Redis
shows that a row is missing whose place is missing, too.

They are looked at in every sweep, whenever a request or a snapshot misses one (`shared.catalog.losses`), and in a Redis
that restarts, before it is open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from logservice.restoring.garbled_rows import GarbledRowRecovery
from shared.catalog import Catalog
from shared.catalog.image import CatalogImage, Images
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

RESTORED_MAX: Final = 100
"""Most restored rows that the report of the last loss keeps."""
TURNS_MAX: Final = 4
"""Most comparisons in a row: a tenant that came back has its databases compared in the next one."""

ReadStored = Callable[[], Awaitable[CatalogImage | None]]
"""Reads the catalog in the bucket; None when there is none that can be read."""

log = get_logger(__name__)


class TenantRecovery:
    """The recovery in one Redis. Everything raises Unavailable."""

    def __init__(self, catalog: Catalog, images: Images, clock: Clock) -> None:
        self._catalog = catalog
        self._images = images
        self._clock = clock
        self._garbled = GarbledRowRecovery(catalog, clock)

    async def recover(self, read_stored: ReadStored, *, is_open: bool = True) -> bool:
        """Puts back what is missing, in a Redis that `is_open` or not. False when something is still to be compared,
        because it was changed meanwhile.
        """
        for _ in range(TURNS_MAX):
            observed = await self._catalog.slots.observe()  # first: what is changed from here on is no loss
            garbled = await self._garbled.find(observed)
            stored = await read_stored()
            mended = await self._garbled.mend(garbled, stored)
            if stored is None:
                return True
            done = await self._catalog.slots.put_back(observed, stored, is_open=is_open)
            done.found += mended
            if done.taken:
                log.error("databases_not_restored", taken=done.taken)
            if done.found:
                log.error("tenants_restored", rows=done.found)
                found, now_s = done.found, self._clock.now()
                await self._images.amend_report(partial(with_restored_rows, found=found, at_s=now_s))
            if not done.again:
                return True
        return False


def with_restored_rows(report: Mapping[str, Any] | None, found: Sequence[str], at_s: float) -> dict[str, Any]:
    """The report of the last loss with more rows of the catalog that were restored alone."""
    before = (report or {}).get("restored_rows", [])
    restored = [{"what": what, "at_s": at_s} for what in found]
    return {**(report or {}), "restored_rows": [*before, *restored][-RESTORED_MAX:]}
