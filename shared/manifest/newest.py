"""The newest manifest of a shard by what is in the bucket alone: for a Redis that has lost its pointer.

1. The highest version of the latest epoch decides. An earlier epoch's manifest may have a higher version: its compactor
   slept through a restoration.
2. Nor does the hash decide by which a manifest names its parent: a slow compactor may have taken the name of a version
   that was collected long ago. The versions between that manifest and its parent were given up by its writer. The
   writer may have been wrong, and then one of them was committed, and the log trimmed up to it. Every manifest of that
   epoch whose files are whole and that continues the same parent, directly or over others, is right about what it
   covers; so the one that covers the most loses nothing.
3. A manifest without a checksum (format 1) must prove: the digests of the records that it says are alive are read
   (`shared.manifest.digests`). One with a checksum has proven itself when it was read.
4. A manifest that cannot be read or does not prove is passed over, and named. What it alone covered is missing then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.digests import verify_digest
from shared.manifest.model import Manifest, ParentRef
from shared.manifest.store import ManifestStore, verify_present
from shared.objects.keys import manifest_key
from shared.objects.port import ObjectStore

Readable = tuple[Manifest, Pointer]
"""A manifest, and the pointer that would commit it."""


@dataclass(frozen=True, slots=True)
class NewestManifest:
    """The newest whole manifest of a shard, to which it can be restored, None where it has none.

    `passed_over` says of each damaged manifest that may have been newer, by its key, what is wrong with it. It is not
    known what these covered: `versions_passed` of them at most may have been committed one after the other, each with
    up to `limits.BACKLOG_OPS_CEILING` operations more than the one before. `damaged_records` says the same of files
    because of which the one that was taken could not prove; an older one names them, too.
    """

    found: Readable | None
    passed_over: Mapping[str, str] = field(default_factory=dict)
    versions_passed: int = 0
    damaged_records: Mapping[str, str] = field(default_factory=dict)

    @property
    def damaged(self) -> dict[str, str]:
        """By name, the damage of each stored thing that is damaged, in words."""
        return {**self.passed_over, **self.damaged_records}


async def newest_manifest(objects: ObjectStore, collection: str, shard: int, epoch_min: int = 0) -> NewestManifest:
    """The newest manifest of a shard, of the epoch `epoch_min` or a later one. Raises Unavailable."""
    store, damaged = ManifestStore(objects), dict[int, str]()
    versions = await store.versions(collection, shard)
    while True:
        candidates = await _candidates(store, collection, shard, versions, damaged)
        best = await _best(objects, [each for each in candidates if each[0].epoch >= epoch_min])
        problem = await _problem_of(objects, best[0]) if best else None
        if best is not None and problem is not None and problem.name == best[0].key:
            damaged[best[0].version] = problem.message
            continue
        parent = best[0].parent if best else None
        newer = [version for version in damaged if version > (parent.version if parent else 0)]
        return NewestManifest(
            best,
            {manifest_key(collection, shard, version): damaged[version] for version in sorted(newer)},
            max(newer) - (parent.version if parent else 0) if newer else 0,
            {problem.name: problem.message} if problem else {},
        )


async def _candidates(
    store: ManifestStore, collection: str, shard: int, versions: Sequence[int], damaged: dict[int, str]
) -> list[Readable]:
    """The highest version that can be read, and before it, ascending, all that can be between that and its parent.
    Notes in `damaged` those that cannot.
    """
    found: list[Readable] = []
    for version in reversed(versions):
        if found and version <= (found[0][0].parent.version if found[0][0].parent else 0):
            break
        if version in damaged:
            continue
        try:
            readable = await store.find(collection, shard, version)
        except Corrupt as error:
            damaged[version] = error.message
            continue
        if readable is not None:
            found.append(readable)
    return found[::-1]


async def _best(objects: ObjectStore, candidates: Sequence[Readable]) -> Readable | None:
    """Steps 1 and 2, of candidates in ascending order."""
    if not candidates:
        return None
    latest = max(manifest.epoch for manifest, _ in candidates)
    *others, best = [each for each in candidates if each[0].epoch == latest]
    lineage = [best[0].parent]
    for other in others:
        if other[0].parent not in lineage:
            continue
        with suppress(Corrupt):
            for segment in other[0].segments:
                await verify_present(objects, segment.info)
            lineage.append(ParentRef(other[1].version, other[1].hash))
            best = other if other[1].covers > best[1].covers else best
    return best


async def _problem_of(objects: ObjectStore, manifest: Manifest) -> Corrupt | None:
    """Step 3: what is wrong with a manifest that can be read, or with the records that it names."""
    try:
        if not manifest.proves_itself:
            await verify_digest(objects, manifest)
    except Corrupt as error:
        return error
    return None
