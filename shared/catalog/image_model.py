"""The catalog, and its rows, as values: what snapshots and the journal hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import orjson
import xxhash

from shared.cluster.placement import Layout
from shared.errors import Corrupt
from shared.log.pairs import split_pairs

FORMAT: Final = 2
FORMATS_READ: Final = (1, FORMAT)


class TenantImage(msgspec.Struct, frozen=True):
    """A tenant. `row` is the stored JSON, `version` that of the slot with its databases (`shared.catalog.slots`) before
    they were read.
    """

    name: str
    row: str
    version: int = 0

    @property
    def key(self) -> str:
        return str(orjson.loads(self.row)["key"])


class DatabaseImage(msgspec.Struct, frozen=True):
    """A database of a tenant. `row` is the stored JSON, `version` that of the slot with its collections before they
    were read.
    """

    tenant: str
    name: str
    key: str
    row: str
    version: int = 0


class CollectionImage(msgspec.Struct, frozen=True):
    """A collection: its row (stored JSON), and what of its state outlives the log. `head` was the next position at that
    time.
    """

    id: str
    database_key: str
    row: str
    fixed: dict[str, Any]
    dimension: int | None
    head: int
    keys: list[tuple[str, str]]
    shards: tuple[int, int]
    """Number of the first shard, and of shards."""

    @property
    def name(self) -> str:
        return str(orjson.loads(self.row)["name"])

    @property
    def generation(self) -> int:
        return int(orjson.loads(self.row)["generation"])

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The collections that a fork comes from, the family's root first; empty: no fork."""
        return tuple(orjson.loads(self.row).get("ancestors", ()))

    @property
    def layout(self) -> Layout:
        return Layout(*self.shards)


Versioned = TypeVar("Versioned", TenantImage, DatabaseImage)


def later_version(row: Versioned, other: Versioned | None) -> Versioned:
    """The row with the higher version of the two."""
    return row if other is None else msgspec.structs.replace(row, version=max(row.version, other.version))


def collection_image(
    collection_id: str, database_key: str, row: bytes, state: Sequence[bytes | None], keys: set[bytes]
) -> CollectionImage:
    """The image of a collection with this row. `state` has the fields head, dim, config and layout of its state, of
    which the first is there; `keys` are its (metadata key, value type) pairs as they are stored, of which those are
    left out that cannot be read. Raises one of UNREADABLE for a state that cannot be read.
    """
    head, dimension, config, encoded = state
    layout = Layout.decode(encoded or b"0 1")
    return CollectionImage(
        id=collection_id,
        database_key=database_key,
        row=row.decode(),
        fixed=orjson.loads(config or b"{}"),
        dimension=None if dimension is None else int(dimension),
        head=int(head or 0),
        keys=sorted(split_pairs(keys)[0]),
        shards=(layout.first, layout.count),
    )


class CatalogImage(msgspec.Struct, frozen=True):
    """The whole catalog, in order of creation. It is read piece by piece while other processes write: each row is as of
    some moment of the reading, and `changes` (the catalog's number of changes) as of its beginning. `taken_s` is the
    time of its end, in seconds since the epoch.
    """

    cluster: str
    epoch: int
    changes: int
    taken_s: float
    tenants: list[TenantImage]
    databases: list[DatabaseImage]
    collections: list[CollectionImage]
    graves: dict[str, float] = {}
    """Deleted collections whose objects are still to be removed, each with the time since when."""
    families: dict[str, list[str]] = {}
    """The forks that each family ever made, by its root."""
    format: int = FORMAT
    version: int = 0
    """The version of the tenants' slot (`shared.catalog.slots`) before they were read; 0 where nobody counted yet."""
    checksum: str = ""
    """The xxh3-128, in hex, of the bytes with an empty checksum; set in the bytes alone. The last member."""

    def encode(self) -> bytes:
        """The form that a snapshot has, but for its compression."""
        blank = msgspec.json.encode(msgspec.structs.replace(self, format=FORMAT, checksum=""))
        return blank.removesuffix(_checksum_member("")) + _checksum_member(xxhash.xxh3_128_hexdigest(blank))

    def same_content(self, other: CatalogImage | None) -> bool:
        """Whether both would restore the same."""
        return other is not None and msgspec.structs.replace(other, taken_s=self.taken_s) == self


_CATALOG_IMAGE: Final = msgspec.json.Decoder(CatalogImage)


def decode_image(data: bytes) -> CatalogImage:
    """The image in the bytes that `encode` gave. Raises Corrupt."""
    try:
        image = _CATALOG_IMAGE.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"not a snapshot of a catalog: {error}") from error
    if image.format not in FORMATS_READ:
        raise Corrupt(f"a catalog snapshot of format {image.format}; this build reads format {FORMAT}")
    if image.format == FORMAT or image.checksum:
        member = _checksum_member(image.checksum)
        blank = data.removesuffix(member) + _checksum_member("")
        if not data.endswith(member) or xxhash.xxh3_128_hexdigest(blank) != image.checksum:
            raise Corrupt("a catalog snapshot that is damaged: its checksum is another one")
    return msgspec.structs.replace(image, checksum="", format=FORMAT)


def _checksum_member(checksum: str) -> bytes:
    """The end of a snapshot's bytes, from its checksum on."""
    return f'"checksum":"{checksum}"}}'.encode()


def lost_keys(before: CatalogImage, now: CatalogImage) -> dict[str, list[tuple[str, str]]]:
    """By collection, the (metadata key, value type) pairs that it had before and has not now. They only grow, so Redis
    has lost them.
    """
    present = {collection.id: set(collection.keys) for collection in now.collections}
    lost = {each.id: sorted(set(each.keys) - present[each.id]) for each in before.collections if each.id in present}
    return {collection_id: pairs for collection_id, pairs in lost.items() if pairs}


def merged(now: CatalogImage, older: CatalogImage | None, heads: Mapping[str, int]) -> CatalogImage:
    """The union of what Redis has now and what only the other image knows. `heads` raises the heads of collections to
    at least these.
    """
    tenants = {tenant.name: tenant for tenant in older.tenants} if older else {}
    databases = {(database.tenant, database.name): database for database in older.databases} if older else {}
    collections = {collection.id: collection for collection in older.collections} if older else {}
    tenants |= {tenant.name: later_version(tenant, tenants.get(tenant.name)) for tenant in now.tenants}
    databases |= {
        (database.tenant, database.name): later_version(database, databases.get((database.tenant, database.name)))
        for database in now.databases
    }
    collections |= {collection.id: collection for collection in now.collections}
    graves = (older.graves if older else {}) | now.graves
    families = {root: set(forks) for root, forks in (older.families if older else {}).items()}
    for root, forks in now.families.items():
        families[root] = families.get(root, set()) | set(forks)
    return msgspec.structs.replace(
        now,
        changes=max(now.changes, older.changes if older else 0),
        version=max(now.version, older.version if older else 0),
        tenants=list(tenants.values()),
        databases=list(databases.values()),
        collections=[
            msgspec.structs.replace(collection, head=max(collection.head, heads.get(collection.id, 0)))
            for collection in collections.values()
        ],
        graves={collection_id: since for collection_id, since in graves.items() if collection_id not in collections},
        families={root: sorted(forks) for root, forks in families.items()},
    )
