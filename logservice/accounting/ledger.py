"""Stored amounts in memory: by shard, by collection, by database. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.log.state import Pointer, ShardState
from shared.manifest.model import Manifest
from shared.segment.format import RECORDS
from shared.tenancy.stored import NOTHING, StoredSums


class ManifestAmounts(NamedTuple):
    """The content of a shard's manifest: its version, the records that are alive, and their logical bytes. `readable`
    is false when the manifest could not be read, and the amounts are older ones.
    """

    version: int
    records: int
    bytes: int
    readable: bool = True


NO_MANIFEST = ManifestAmounts(0, 0, 0)


def amounts_of(manifest: Manifest) -> ManifestAmounts:
    """The records of a manifest that are alive, and the bytes of them: of each segment's records file the part of its
    rows that are alive.
    """
    size = 0
    for segment in manifest.segments:
        info = segment.info
        records = sum(file.bytes for file in info.files if file.name == RECORDS)
        size += records * segment.live // info.rows if info.rows else 0
    return ManifestAmounts(manifest.version, manifest.rows, size)


def shard_sums(state: ShardState, manifest: ManifestAmounts) -> StoredSums:
    """The amounts of one shard: what its manifest has, and the log's part that no manifest has. While some of that is
    compacted and not yet trimmed, all of it counts.
    """
    ops, size = (state.ops_backlog, state.bytes_backlog) if state.uncompacted else (0, 0)
    return StoredSums(manifest.records + ops, manifest.bytes + size, 0, ops, size, 0 if manifest.readable else 1)


@dataclass
class DatabaseLedger:
    """The amounts of a database's collections, and their sums."""

    tenant: str
    name: str
    collections: dict[str, StoredSums] = field(default_factory=dict)
    sums: StoredSums = NOTHING

    def put(self, collection_id: str, shards: Iterable[StoredSums]) -> None:
        """Replaces the amounts of a collection by those of its shards."""
        total = StoredSums(collections=1)
        for each in shards:
            total = total.plus(each)
        self.drop(collection_id)
        self.collections[collection_id] = total
        self.sums = self.sums.plus(total)

    def drop(self, collection_id: str) -> None:
        """Forgets a collection, if it is there."""
        before = self.collections.pop(collection_id, None)
        if before is not None:
            self.sums = self.sums.minus(before)


def is_current(known: ManifestAmounts | None, pointer: Pointer | None) -> bool:
    """Whether the known amounts are those of the manifest that the pointer names."""
    return known is not None and known.version == (pointer.version if pointer else 0)


def total_of(databases: Mapping[str, DatabaseLedger]) -> StoredSums:
    """The sums of all these databases."""
    total = NOTHING
    for ledger in databases.values():
        total = total.plus(ledger.sums)
    return total
