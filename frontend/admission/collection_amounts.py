"""The stored amounts of a collection, out of its manifests and its log's state."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from shared.manifest.amounts import NO_MANIFEST, ManifestAmounts, amounts_of, shard_sums
from shared.tenancy.stored import NOTHING, StoredSums

if TYPE_CHECKING:
    from shared.catalog import Collection
    from shared.log.log import Log
    from shared.log.state import Pointer
    from shared.manifest.store import ManifestStore

MANIFESTS_MAX: Final = 10_000
"""Most shards whose manifest's amounts are remembered."""


class ManifestsAndLog:
    """The amounts of collections. A manifest is read once."""

    def __init__(self, log: Log, manifests: ManifestStore) -> None:
        self._log = log
        self._manifests = manifests
        self._known: OrderedDict[tuple[str, int], ManifestAmounts] = OrderedDict()

    async def read(self, collection: Collection) -> StoredSums:
        """The amounts as they are now. Raises Unavailable, Corrupt."""
        total = NOTHING
        shards = [(collection.id, number) for number in collection.layout.numbers]
        for shard, state in zip(shards, await self._log.states(shards), strict=True):
            if state is not None:
                total = total.plus(shard_sums(state, await self._amounts(shard, state.pointer)))
        return total

    async def _amounts(self, shard: tuple[str, int], pointer: Pointer | None) -> ManifestAmounts:
        if pointer is None:
            return NO_MANIFEST
        known = self._known.get(shard)
        if known is None or known.version != pointer.version:
            known = self._known[shard] = amounts_of(await self._manifests.load(*shard, pointer))
            while len(self._known) > MANIFESTS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(shard)
        return known
