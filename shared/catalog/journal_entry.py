"""The objects of the catalog's journal: `catalog/journal/<epoch, 10 digits>-<number, 20 digits>-<writer>.json`.

An entry says what rows of the catalog were at a moment: for each slot (`shared.catalog.slots`) its version then, and
every row that was pending, or that it is gone. The number was drawn from the catalog's changes *after* the rows were
read; so an entry whose number a snapshot has reached (`CatalogImage.changes`, read before anything else of it) says
nothing that the snapshot does not know, however late it was written.
"""

from __future__ import annotations

from typing import Final

import msgspec
import xxhash

from shared.catalog.image_model import CollectionImage, DatabaseImage, TenantImage
from shared.catalog.slots import Slot
from shared.errors import Corrupt
from shared.objects.keys import journal_key

FORMAT: Final = 1


class SlotChanges(msgspec.Struct, frozen=True):
    """Rows of one slot as they were at `version`. `gone` has ids of collections, or names of databases or tenants;
    `order` the place of each row in the order of creation.
    """

    version: int
    tenant: str | None = None
    database: str | None = None
    tenants: list[TenantImage] = []
    databases: list[DatabaseImage] = []
    collections: list[CollectionImage] = []
    gone: list[str] = []
    order: dict[str, float] = {}

    @property
    def slot(self) -> Slot:
        return Slot(self.tenant, self.database)


class JournalEntry(msgspec.Struct, frozen=True):
    """An entry. `checksum` is the xxh3-128, in hex, of its bytes with an empty checksum."""

    cluster: str
    epoch: int
    number: int
    writer: str
    written_s: float
    slots: list[SlotChanges]
    checksum: str = ""
    format: int = FORMAT

    @property
    def key(self) -> str:
        """The key of its object."""
        return journal_key(self.epoch, self.number, self.writer)

    def encode(self) -> bytes:
        """The bytes of its object."""
        return msgspec.json.encode(msgspec.structs.replace(self, checksum=self._sum()))

    def _sum(self) -> str:
        return xxhash.xxh3_128_hexdigest(msgspec.json.encode(msgspec.structs.replace(self, checksum="")))


_JOURNAL_ENTRY: Final = msgspec.json.Decoder(JournalEntry)


def decode_entry(key: str, data: bytes) -> JournalEntry:
    """The entry in the bytes of the object `key`. Raises Corrupt when they are damaged, or another object's."""
    try:
        entry = _JOURNAL_ENTRY.decode(data)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{key} is no entry of the catalog's journal: {error}") from error
    if entry.format != FORMAT:
        raise Corrupt(f"{key} is of format {entry.format}; this build reads format {FORMAT}")
    bare = data.replace(b'"checksum":"%b"' % entry.checksum.encode(), b'"checksum":""', 1)
    if xxhash.xxh3_128_hexdigest(bare) != entry.checksum or entry.key != key:
        raise Corrupt(f"{key} does not have the content that was written")
    return entry
