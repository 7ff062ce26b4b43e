"""The manifests of a shard's past that are left in the bucket."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress
from typing import Final, NamedTuple

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore

GIVEN_UP_IN_A_ROW_MAX: Final = 8
"""Manifests behind another one that are looked at for its child. Each was given up by a compactor that then took the
next version."""


class PastManifest(NamedTuple):
    """A manifest that was committed once, and the pointer that named it."""

    manifest: Manifest
    pointer: Pointer


class PastManifests:
    """Finds manifests that once were committed. The methods raise Unavailable while the bucket is away."""

    def __init__(self, objects: ObjectStore) -> None:
        self._store = ManifestStore(objects)

    async def at(self, collection: str, shard: int, position: int, newest: Pointer | None) -> PastManifest | None:
        """The newest manifest that covers at most `position`, of those that are left and were committed before or with
        `newest`; None when there is none.

        Of committed manifests a later one never covers less, so that the search halves; what was given up in between
        can mislead it to a somewhat older manifest, never to a wrong one.
        """
        chain = _Chain(self._store, collection, shard, await self._versions(collection, shard, newest), newest)
        low, high = 0, len(chain.versions)
        while low < high:
            middle = (low + high) // 2
            found = await chain.load(middle)
            if found is None or found.pointer.covers <= position:
                low = middle + 1
            else:
                high = middle
        for place in reversed(range(low)):
            found = await chain.load(place)
            if found is not None and found.pointer.covers <= position and await chain.is_ancestor(place):
                return found
        return None

    async def oldest(self, collection: str, shard: int, newest: Pointer | None, least: int) -> PastManifest | None:
        """The oldest manifest that covers `least` or more; None when there is none."""
        chain = _Chain(self._store, collection, shard, await self._versions(collection, shard, newest), newest)
        for place in range(len(chain.versions)):
            found = await chain.load(place)
            if found is not None and found.pointer.covers >= least and await chain.is_ancestor(place):
                return found
        return None

    async def parent(self, manifest: Manifest) -> PastManifest | None:
        """The manifest that this one continues; None when it has none, or that is gone or damaged."""
        with suppress(Corrupt):
            found = await self._store.parent(manifest)
            return PastManifest(*found) if found else None
        return None

    async def _versions(self, collection: str, shard: int, newest: Pointer | None) -> list[int]:
        """The versions that are left, ascending, up to the committed one."""
        if newest is None:
            return []
        versions = await self._store.versions(collection, shard)
        return versions[: bisect_right(versions, newest.version)]


class _Chain:
    """The manifests of a shard up to the committed one, read as they are asked for."""

    def __init__(
        self, store: ManifestStore, collection: str, shard: int, versions: list[int], newest: Pointer | None
    ) -> None:
        self.versions = versions
        self._store = store
        self._collection = collection
        self._shard = shard
        self._newest = newest
        self._loaded: dict[int, PastManifest | None] = {}

    async def load(self, place: int) -> PastManifest | None:
        """The manifest of the version at this place; None when it is gone meanwhile, or cannot be read."""
        if place not in self._loaded:
            found = None
            with suppress(Corrupt):  # of no use, as one that is gone; what is committed is checked by those who use it
                found = await self._store.find(self._collection, self._shard, self.versions[place])
            self._loaded[place] = None if found is None else PastManifest(*found)
        return self._loaded[place]

    async def is_ancestor(self, place: int) -> bool:
        """Whether the committed manifest is this one, or comes of it.

        Within an epoch all committed manifests are one chain. A restoration may go back to an earlier one of them: what
        the first manifest of a later epoch continues says how far they count.
        """
        found = await self.load(place)
        if found is None or not await self._was_committed(place):
            return False
        for later in range(await self._end_of_epoch(place), len(self.versions)):
            first = await self.load(later)
            if first is not None and await self._was_committed(later):
                parent = first.manifest.parent
                counts = parent is not None and found.pointer.version <= parent.version
                return counts and await self.is_ancestor(later)
        return True

    async def _end_of_epoch(self, place: int) -> int:
        """The place of the first manifest of a later epoch; the number of all when there is none."""
        begin = await self.load(place)
        epoch = begin.manifest.epoch if begin else 0
        low, high = place + 1, len(self.versions)
        while low < high:
            middle = (low + high) // 2
            found = await self.load(middle)
            if found is not None and found.manifest.epoch > epoch:
                high = middle
            else:
                low = middle + 1
        return low

    async def _was_committed(self, place: int) -> bool:
        """Whether the manifest was committed: the pointer names it, or a later manifest continues it."""
        found = await self.load(place)
        if found is None:
            return False
        if found.pointer == self._newest:
            return True
        for later in range(place + 1, min(place + 1 + GIVEN_UP_IN_A_ROW_MAX, len(self.versions))):
            child = await self.load(later)
            parent = None if child is None else child.manifest.parent
            if parent is not None and (parent.version, parent.hash) == (found.pointer.version, found.pointer.hash):
                return True
        return False
