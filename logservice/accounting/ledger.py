"""Stored amounts in memory: by shard, by collection, by database. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shared.log.state import Pointer
from shared.manifest.amounts import ManifestAmounts
from shared.tenancy.stored import NOTHING, StoredSums


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
