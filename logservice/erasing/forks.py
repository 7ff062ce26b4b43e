"""The right of forks to a part of their origin: segments below its prefix that their manifests name."""

from __future__ import annotations

from collections.abc import Set

from shared.catalog.collections import Collections
from shared.manifest.model import decode
from shared.objects.keys import parse_manifest_key
from shared.objects.port import ObjectNotFound, ObjectStore


class ForkHolds:
    """The forks of a cluster. Everything raises Unavailable, and Corrupt when a manifest of a fork cannot be read: it
    is not known then what the fork has.
    """

    def __init__(self, collections: Collections, objects: ObjectStore) -> None:
        self._collections = collections
        self._objects = objects

    async def held(self, collection: str, segments: Set[str]) -> dict[str, str]:
        """Those of the segments (by path) that other collections name, each with the id of one that does."""
        found: dict[str, str] = {}
        async for other in self._collections.all():
            if collection in other.ancestors:
                for path in segments & await self._named_by(other.id):
                    found.setdefault(path, other.id)
        return found

    async def _named_by(self, fork: str) -> set[str]:
        named: set[str] = set()
        async for info in self._objects.list(f"{fork}/"):
            if parse_manifest_key(info.key) is None:
                continue
            try:
                manifest = decode(await self._objects.get(info.key))
            except ObjectNotFound:
                continue  # collected meanwhile
            named |= {segment.info.path for segment in manifest.segments}
        return named
