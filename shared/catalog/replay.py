"""The journal applied to a snapshot, without effects: the catalog as it was last acknowledged.

An entry says what rows were at a version of their slot, and the snapshot, too. So the order in which entries are
applied does not matter, nor whether some are applied twice or are older than the snapshot:

1. Of every row, what was seen last counts: by epoch, then by version. What was seen at a version that the snapshot had
   reached before it read the slot is older than the snapshot.
2. A collection that has a grave stays deleted: deletions are in the journal before there is a grave, and ids are used
   once.
3. Databases without a tenant and collections without a database are gone, as are the databases of a tenant that was
   removed and made again. What is gone gets a grave, so that its objects are removed.
4. Heads are the highest that were seen; metadata keys are all that were seen: both only grow.
5. Two collections of a database with one name are left over only where an entry was lost. The one that was seen later
   keeps it, and the other one gets a name of its own: both hold data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec
import orjson

from shared.catalog.image_model import CatalogImage, CollectionImage, DatabaseImage, TenantImage
from shared.catalog.journal_entry import JournalEntry
from shared.catalog.rows import encode_row
from shared.catalog.slots import TENANTS, Slot

Image = TypeVar("Image", TenantImage, DatabaseImage, CollectionImage)

NAME_CHARACTERS_MAX: Final = 512


class Moment(NamedTuple):
    """A version of a slot in an epoch of the cluster."""

    epoch: int
    version: int


class _Seen(NamedTuple, Generic[Image]):
    """A row when it was seen last; no image when it was gone. `order`: its place in the order of creation."""

    at: Moment
    order: float
    image: Image | None


def replayed(image: CatalogImage, entries: Iterable[JournalEntry], now_s: float) -> CatalogImage:
    """The catalog of the snapshot and of the entries. `now_s` becomes the time of new graves."""
    newer = [entry for entry in entries if is_newer(entry.epoch, entry.number, image)]
    if not newer:
        return image
    replay = _Replay(image, newer)
    tenants = replay.tenants()
    databases = replay.databases(tenants)
    collections = replay.collections(databases)
    living = {collection.id for collection in collections}
    graves = dict.fromkeys(replay.known - living, now_s) | image.graves
    return msgspec.structs.replace(
        image,
        changes=max(image.changes, *(entry.number for entry in newer)),
        version=replay.version(TENANTS, image.version),
        tenants=tenants,
        databases=databases,
        collections=collections,
        graves={collection_id: since for collection_id, since in graves.items() if collection_id not in living},
        families=replay.families(),
    )


def is_newer(epoch: int, number: int, image: CatalogImage) -> bool:
    """Whether an entry of this name may say something that the snapshot does not know."""
    return epoch > image.epoch or (epoch == image.epoch and number > image.changes)


class _Replay:
    """A snapshot, and what newer entries have seen. `known` are the ids of all collections that either names."""

    def __init__(self, image: CatalogImage, entries: Sequence[JournalEntry]) -> None:
        self._image = image
        self._versions: dict[Slot, int] = {}
        self._tenants: dict[str, _Seen[TenantImage]] = {}
        self._databases: dict[tuple[str, str], _Seen[DatabaseImage]] = {}
        self._collections: dict[str, _Seen[CollectionImage]] = {}
        self._growth: dict[str, list[CollectionImage]] = defaultdict(list)
        bases = _versions_of(image)
        for entry in entries:
            for slot in entry.slots:
                at = Moment(entry.epoch, slot.version)
                self._versions[slot.slot] = max(self._versions.get(slot.slot, 0), slot.version)
                if at <= Moment(image.epoch, bases.get(slot.slot, 0)):
                    continue
                for tenant in slot.tenants:
                    _see(self._tenants, tenant.name, at, 0.0, tenant)
                for database in slot.databases:
                    order = slot.order.get(database.name, 0.0)
                    _see(self._databases, (database.tenant, database.name), at, order, database)
                for collection in slot.collections:
                    self._growth[collection.id].append(collection)
                    _see(self._collections, collection.id, at, slot.order.get(collection.id, 0.0), collection)
                self._see_gone(slot.slot, slot.gone, at)
        self.known = {collection.id for collection in image.collections} | set(self._collections)

    def _see_gone(self, slot: Slot, gone: Iterable[str], at: Moment) -> None:
        for name in gone:
            if slot.database is not None:
                _see(self._collections, name, at, 0.0, None)
            elif slot.tenant is not None:
                _see(self._databases, (slot.tenant, name), at, 0.0, None)
            else:
                _see(self._tenants, name, at, 0.0, None)

    def version(self, slot: Slot, of_image: int) -> int:
        """The highest version of the slot that was seen."""
        return max(of_image, self._versions.get(slot, 0))

    def tenants(self) -> list[TenantImage]:
        found = _applied({tenant.name: tenant for tenant in self._image.tenants}, self._tenants)
        versions = {tenant.name: tenant.version for tenant in self._image.tenants}
        return [
            msgspec.structs.replace(
                tenant, version=self.version(Slot(tenant=tenant.name), versions.get(tenant.name, 0))
            )
            for tenant in found
        ]

    def databases(self, tenants: Sequence[TenantImage]) -> list[DatabaseImage]:
        """The databases of these tenants."""
        keys = {tenant.name: tenant.key for tenant in self._image.tenants}
        same = {tenant.name for tenant in tenants if keys.get(tenant.name) == tenant.key}
        before = {
            (database.tenant, database.name): database for database in self._image.databases if database.tenant in same
        }
        living = {tenant.name for tenant in tenants}
        versions = {database.key: database.version for database in self._image.databases}
        return [
            msgspec.structs.replace(
                database, version=self.version(Slot(database=database.key), versions.get(database.key, 0))
            )
            for database in _applied(before, self._databases)
            if database.tenant in living
        ]

    def collections(self, databases: Sequence[DatabaseImage]) -> list[CollectionImage]:
        """The collections of these databases."""
        living = {database.key for database in databases}
        before = {collection.id: collection for collection in self._image.collections}
        found = [
            _grown(collection, [*self._growth[collection.id], before.get(collection.id, collection)])
            for collection in _applied(before, self._collections)
            if collection.database_key in living and collection.id not in self._image.graves
        ]
        return _with_own_names(found, {each: seen.at for each, seen in self._collections.items()})

    def families(self) -> dict[str, list[str]]:
        """The forks that each family ever made, with those that entries have seen, deleted or not."""
        families = {root: set(forks) for root, forks in self._image.families.items()}
        for seen in self._growth.values():
            for collection in seen:
                if collection.ancestors:
                    families.setdefault(collection.ancestors[0], set()).add(collection.id)
        return {root: sorted(forks) for root, forks in families.items()}


def _versions_of(image: CatalogImage) -> dict[Slot, int]:
    """The version of each slot before the image read its rows."""
    versions = {Slot(database=database.key): database.version for database in image.databases}
    versions |= {Slot(tenant=tenant.name): tenant.version for tenant in image.tenants}
    return versions | {TENANTS: image.version}


Key = TypeVar("Key")


def _see(seen: dict[Key, _Seen[Image]], key: Key, at: Moment, order: float, image: Image | None) -> None:
    """Keeps the row if it was seen later than what is there."""
    if key not in seen or at > seen[key].at:
        seen[key] = _Seen(at, order, image)


def _applied(before: Mapping[Key, Image], seen: Mapping[Key, _Seen[Image]]) -> list[Image]:
    """The rows that there are: in the order of the snapshot, then new ones in their order of creation."""
    rows = {key: seen[key].image if key in seen else image for key, image in before.items()}
    new = sorted((row.at.epoch, row.order, str(key), key) for key, row in seen.items() if key not in before)
    rows |= {key: seen[key].image for _, _, _, key in new}
    return [image for image in rows.values() if image is not None]


def _grown(collection: CollectionImage, seen: Sequence[CollectionImage]) -> CollectionImage:
    """The collection with the highest head, all metadata keys and the latest layout of these images of it."""
    dimensions = [each.dimension for each in seen if each.dimension is not None]
    return msgspec.structs.replace(
        collection,
        head=max(each.head for each in seen),
        keys=sorted({pair for each in seen for pair in each.keys}),
        dimension=dimensions[0] if dimensions else None,
        shards=max((each.shards for each in seen), key=lambda shards: shards[0]),
    )


def _with_own_names(collections: Sequence[CollectionImage], seen: Mapping[str, Moment]) -> list[CollectionImage]:
    """The collections, no two of a database with one name: of those the one that was seen last keeps it."""
    owners: dict[tuple[str, str], CollectionImage] = {}
    for collection in sorted(collections, key=lambda each: seen.get(each.id, Moment(0, 0))):
        owners[collection.database_key, collection.name] = collection
    return [
        collection if owners[collection.database_key, collection.name].id == collection.id else _renamed(collection)
        for collection in collections
    ]


def _renamed(collection: CollectionImage) -> CollectionImage:
    """The collection in its next generation, under its name and its id."""
    row = orjson.loads(collection.row)
    kept = row["name"][: NAME_CHARACTERS_MAX - len(collection.id) - 1]
    row |= {"name": f"{kept}-{collection.id}", "generation": row["generation"] + 1}
    return msgspec.structs.replace(collection, row=encode_row(row).decode())
