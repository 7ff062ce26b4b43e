"""Recovers a Redis that restarts and has lost names, rows or whole states alone, before the cluster is opened in it.
Nobody else could do so then (`logservice.restoring.database_recovery` does in an open cluster), and no image of the
catalog can be taken.

Names, rows and order are put back from each other and from the bucket. What a state says of a stream is filled in again
of the stream: a log that the state does not tell of would seem to have lost entries. A state whose streams are whole is
made of them and of the bucket, and is compared with the bucket like all others afterwards. One whose streams are not
whole is restored from the bucket, as in a Redis that lost everything. No snapshot is written here: this Redis may have
gone back, and the bucket may know more than it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from logservice.restoring.evidence import Evidence
from logservice.restoring.missing_rows import MissingRows, rows_by_database
from logservice.restoring.row_recovery import RowRecovery
from logservice.restoring.tenant_recovery import ReadStored, TenantRecovery
from logservice.restoring.unreadable_fields import UnreadableFields
from shared.catalog import Catalog, Cluster
from shared.catalog.image import CatalogImage, CollectionImage, Images
from shared.catalog.slots import Slot
from shared.errors import Corrupt, Unavailable
from shared.log.log import Log
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.records.model import FIRST_POSITION

log = get_logger(__name__)


class LostAlone:
    """Recovers a server that is not open. Everything raises Unavailable."""

    def __init__(self, catalog: Catalog, images: Images, log_: Log, objects: ObjectStore, clock: Clock) -> None:
        self._catalog = catalog
        self._images = images
        self._log = log_
        self._evidence = Evidence(objects)
        self._unreadable = UnreadableFields(images, clock)
        self._refilled: dict[str, list[str]] = {}
        """The fields that were filled in, by collection, until that is in the report."""
        self._tenants = TenantRecovery(catalog, images, clock)
        self._rows = RowRecovery(catalog, clock)

    async def recover_rows(self, stored: CatalogImage | None, read_again: ReadStored) -> None:
        """Puts back names, rows and places in the order. `stored` is the catalog as the bucket has it, and `read_again`
        reads it once more. Raises Unavailable, too, when somebody changes the tenants meanwhile, or has collections
        forgotten.
        """

        async def read_stored() -> CatalogImage | None:
            return stored

        if not await self._tenants.recover(read_stored, is_open=False):
            raise Unavailable("Tenants are changed while they are restored")
        rows, missing_rows = rows_by_database(stored), MissingRows(self._catalog, read_again)
        async for database in self._catalog.databases.all(set()):
            survey = await self._catalog.garbled.survey(Slot(database=database.key))
            await self._rows.put_right(database, survey, stored, is_open=False)
            if not await missing_rows.recover(database, rows.get(database.key, {})):
                raise Unavailable("Collections are forgotten while they are restored")

    async def rejoin(self, cluster: Cluster, lost: Iterable[CollectionImage]) -> None:
        """Makes the states of these collections anew where their streams are whole. Fields that cannot be read count as
        lost.
        """
        for known in lost:
            await self._unreadable.drop(known)
            try:
                rejoined = await self._rejoin(cluster, known)
            except Corrupt as error:
                log.error("state_not_rejoined", collection=known.id, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
            else:
                event = "state_rejoined" if rejoined else "state_not_rejoined"
                log.error(event, collection=known.id, name=known.name)

    async def rejoin_streams(self, now: CatalogImage) -> None:
        """Gives the states of these collections back what they lost of what their streams say."""
        self._refilled = await self._images.rejoin_all(now)
        for collection in now.collections:
            if fields := self._refilled.get(collection.id):
                log.error("stream_fields_restored", collection=collection.id, name=collection.name, fields=fields)

    async def restored(self, lost: Iterable[CollectionImage], now: CatalogImage) -> None:
        """Says of these collections, whose states are whole again, that they were restored; and of those of the image,
        which fields of their states were filled in.
        """
        for known in lost:
            await self._unreadable.restored(known)
        for collection in now.collections:
            if fields := self._refilled.pop(collection.id, None):
                await self._unreadable.refilled(collection, fields)

    async def _rejoin(self, cluster: Cluster, known: CollectionImage) -> bool:
        """Whether the streams of the shards are whole behind the newest manifests, and go equally far: then the state
        is there again. Raises Corrupt.
        """
        rejoined = await self._images.rejoin_state(known)
        stored = await self._evidence.stored(known.id, known.layout)
        if not rejoined.streams or stored.layout != known.layout:
            return False
        covers = {
            shard: pointer.covers if pointer else FIRST_POSITION
            for shard, pointer in zip(known.layout.numbers, stored.latest, strict=True)
        }
        whole = [await self._log.is_whole(known.id, *each) for each in covers.items()]
        if not all(whole) or not await self._log.reach_one_end(known.id, covers):
            return False
        dimension = known.dimension or stored.dimension or await self._images.logged_dimension(known)
        filled = msgspec.structs.replace(known, dimension=dimension)
        await self._images.fill_state(filled, max(known.head, rejoined.end), cluster.epoch, stored.latest)
        return True
