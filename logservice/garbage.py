"""Garbage collection in the bucket: what may be deleted, and its deletion.

Nobody deletes while working; crashes and lost races leave files behind. One collector at a time goes over the bucket.
Time only ever keeps things longer: what it may delete follows from manifests. Ages are told by the bucket's clock.

1. Manifests. Of a living shard, kept are: the one that the pointer names and all later ones (a later one may be waiting
   to be completed), and every one that was replaced less than `retention_s` ago, judged by the age of the manifest
   after it (readers, backups and forks may still use it). The others are condemned.
2. References. Every kept manifest of every living collection is read. A segment that any of them names is kept,
   whoever's prefix it stands under: a fork names its parent's segments.
3. Segments that nobody names are condemned when all of their files are older than `grace_s`. The grace period covers a
   compaction that has uploaded files and not created its manifest yet, so it must be longer than the longest one.
4. A collection that the catalog does not have is dead. What its prefix holds is condemned, but for references of
   others, when all of it is older than `grace_s` and the collection has been seen dead for as long. (The catalog must
   be whole: nothing is collected while it is being restored.)

Why nothing that is condemned can come back: a new manifest names segments of its parent and new ones. A compactor that
started from a condemned parent cannot commit: the pointer has moved.

Condemned manifests go first: a crash in between leaves segments without a name, never a name without its segment.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from shared.clock import Clock
from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest import decode, parse_key
from shared.objects.open import PROBES
from shared.objects.port import ObjectInfo, ObjectNotFound, ObjectStore
from shared.telemetry import get_logger

DELETED: Final = Counter("polychrome_garbage_deleted", "Objects that were deleted as garbage, by kind.", ["kind"])
DELETED_BYTES: Final = Counter("polychrome_garbage_deleted_bytes", "Bytes of objects deleted as garbage.")

DELETE_AT_ONCE: Final = 1000
LOADS_AT_ONCE: Final = 16

log = get_logger(__name__)

ShardKey = tuple[str, int]
_COLLECTION: Final = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/", re.ASCII)
_SEGMENT: Final = re.compile(r"([^/]+/\d+/segments/[^/]+)/[^/]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Periods:
    """See the module's text; in seconds."""

    grace_s: float
    retention_s: float


@dataclass(frozen=True, slots=True)
class Judged:
    """Manifests of living shards, by key."""

    kept: list[str]
    condemned: list[str]


@dataclass(frozen=True, slots=True)
class Collected:
    """What one round deleted."""

    manifests: int
    others: int
    bytes: int


def judge_manifests(
    objects: Iterable[ObjectInfo], shards: Mapping[ShardKey, Pointer | None], now: float, periods: Periods
) -> Judged:
    """Step 1. `shards` has the pointer of every shard of every living collection. Raises Corrupt when a manifest that a
    pointer names is not there: then the bucket and the log do not belong together, and nothing may be deleted.
    """
    created: dict[ShardKey, dict[int, ObjectInfo]] = defaultdict(dict)
    for info in objects:
        parsed = parse_key(info.key)
        if parsed is not None:
            collection, shard, version = parsed
            created[collection, shard][version] = info
    kept: list[str] = []
    condemned: list[str] = []
    living = {collection for collection, _ in shards}
    for key in created.keys() - shards.keys():
        if key[0] in living:  # not a shard that the catalog knows: none of our business
            kept += [info.key for info in created[key].values()]
    for key, pointer in shards.items():
        versions = created[key]
        if pointer is not None and pointer.version not in versions:
            raise Corrupt(f"the committed manifest {pointer.version} of {key[0]}/{key[1]} is not in the bucket")
        for version, info in versions.items():
            replaced_s = versions.get(version + 1, info).modified_s
            current = pointer is None or version >= pointer.version
            recent = replaced_s > now - periods.retention_s
            (kept if current or recent else condemned).append(info.key)
    return Judged(sorted(kept), sorted(condemned))


def judge_segments(
    objects: Iterable[ObjectInfo], living: frozenset[str], referenced: frozenset[str], now: float, periods: Periods
) -> list[str]:
    """Step 3: keys of files of living collections' segments that no kept manifest names."""
    files: dict[str, list[ObjectInfo]] = defaultdict(list)
    for info in objects:
        found = _SEGMENT.fullmatch(info.key)
        if found and collection_of(info.key) in living and found[1] not in referenced:
            files[found[1]].append(info)
    return [
        info.key
        for segment in files.values()
        if max(info.modified_s for info in segment) <= now - periods.grace_s
        for info in segment
    ]


def judge_dead(
    objects: Iterable[ObjectInfo],
    dead_since: Mapping[str, float],
    referenced: frozenset[str],
    now: float,
    periods: Periods,
) -> list[str]:
    """Step 4: keys below the prefixes of dead collections. `dead_since` says when each was first seen dead."""
    left: dict[str, list[ObjectInfo]] = defaultdict(list)
    for info in objects:
        collection = collection_of(info.key)
        if collection is not None and collection in dead_since:
            left[collection].append(info)
    return [
        info.key
        for collection, found in left.items()
        if max(dead_since[collection], *(info.modified_s for info in found)) <= now - periods.grace_s
        for info in found
        if not ((segment := _SEGMENT.fullmatch(info.key)) and segment[1] in referenced)
    ]


def judge_probes(objects: Iterable[ObjectInfo], now: float, periods: Periods) -> list[str]:
    """Keys of what processes that died while they tried the store left."""
    return [info.key for info in objects if info.key.startswith(PROBES) and info.modified_s <= now - periods.grace_s]


def collection_of(key: str) -> str | None:
    """The collection below whose prefix the key stands; None for objects that belong to none."""
    found = _COLLECTION.match(key)
    return found[1] if found else None


class Garbage:
    """The collector. Remembers since when it has seen collections dead, and what manifests name (they never change)."""

    def __init__(self, objects: ObjectStore, clock: Clock, periods: Periods) -> None:
        self._objects = objects
        self._clock = clock
        self._periods = periods
        self._dead_since: dict[str, float] = {}
        self._named: dict[str, frozenset[str]] = {}

    async def collect(self, shards: Mapping[ShardKey, Pointer | None]) -> Collected:
        """One round. `shards` is read from the whole catalog before the call: every shard of every collection that is
        not deleted, with its pointer. Raises Corrupt when the bucket contradicts it (nothing was deleted then),
        Unavailable.
        """
        found, now = await self._survey()
        living = frozenset(collection for collection, _ in shards)
        self._observe(found, living, now)
        manifests = judge_manifests(found, shards, now, self._periods)
        referenced = await self._references(manifests.kept)
        others = [
            *judge_segments(found, living, referenced, now, self._periods),
            *judge_dead(found, self._dead_since, referenced, now, self._periods),
            *judge_probes(found, now, self._periods),
        ]
        sizes = {info.key: info.bytes for info in found}
        for kind, condemned in (("manifest", manifests.condemned), ("other", others)):
            for start in range(0, len(condemned), DELETE_AT_ONCE):
                some = condemned[start : start + DELETE_AT_ONCE]
                await self._objects.delete(some)
                DELETED.labels(kind).inc(len(some))
                DELETED_BYTES.inc(sum(sizes[key] for key in some))
        collected = Collected(
            len(manifests.condemned), len(others), sum(sizes[key] for key in [*manifests.condemned, *others])
        )
        if manifests.condemned or others:
            log.info("collected garbage", manifests=collected.manifests, others=collected.others, bytes=collected.bytes)
        return collected

    async def _survey(self) -> tuple[list[ObjectInfo], float]:
        """Everything in the bucket, and the time by which its age is judged: the earlier one of our clock and the
        bucket's, which the age of a fresh object tells. With a clock that is ahead, files that are being uploaded
        would be old.
        """
        probe = f"{PROBES}{uuid.uuid4().hex}"
        await self._objects.put(probe, b"what time is it?")
        now = self._clock.now()
        found = [info async for info in self._objects.list("")]
        await self._objects.delete([probe])
        times = [info.modified_s for info in found if info.key == probe]
        return [info for info in found if info.key != probe], min([now, *times])

    def _observe(self, found: Sequence[ObjectInfo], living: frozenset[str], now: float) -> None:
        dead = {collection for info in found if (collection := collection_of(info.key)) is not None} - living
        self._dead_since = {collection: self._dead_since.get(collection, now) for collection in dead}

    async def _references(self, kept: Sequence[str]) -> frozenset[str]:
        """Step 2: the paths of all segments that these manifests name."""
        missing = iter([key for key in kept if key not in self._named])

        async def load_one_after_the_other() -> None:
            for key in missing:
                self._named[key] = await self._load(key)

        ended = await asyncio.gather(
            *(load_one_after_the_other() for _ in range(LOADS_AT_ONCE)), return_exceptions=True
        )
        for failure in ended:
            if failure is not None:
                raise failure
        self._named = {key: self._named[key] for key in kept}
        return frozenset().union(*self._named.values())

    async def _load(self, key: str) -> frozenset[str]:
        try:
            manifest = decode(await self._objects.get(key))
        except ObjectNotFound:
            raise Corrupt(f"{key} was listed and is gone: somebody else deletes in this bucket") from None
        return frozenset(segment.info.path for segment in manifest.segments)
