"""Garbage collection in the bucket: what may be deleted, and its deletion.

Nobody deletes while working; crashes and lost races leave files behind. One collector at a time goes over the bucket.
Time only ever keeps things longer: what it may delete follows from manifests. Ages are told by the bucket's clock.

1. Manifests. Of a living shard, kept are: the one that the pointer names and all later ones (a later one may be waiting
   to be completed), and every one that was replaced less than `retention_s` ago, judged by the age of the manifest
   after it (readers, backups and forks may still use it). The others are condemned, and so are all manifests of shards
   that a collection does not have any more, once it got others more than `retention_s` ago and a snapshot says so.
2. References. Every kept manifest of every living collection is read, and every one of collections that the catalog
   neither has nor buried: a fork has manifests before it has a row. A segment that any of them names is kept, whoever's
   prefix it stands under: a fork names its origin's segments. Where a manifest of a fork cannot be read, all segments
   of its ancestors are kept.
3. Segments that nobody names, all of whose files are older than `grace_s`, are condemned: a mark is left beside their
   files. In a later round that still sees nobody name it, a condemned segment goes, the mark last; if somebody does,
   the mark alone goes. The grace period only saves work: it covers the usual compaction under way.
4. A collection is dead when the catalog says that it was deleted (its grave), never because the catalog does not have
   it. What its prefix holds goes, but for references of others, when all of it and the grave are older than
   `grace_s`. A grave with nothing left is forgotten. Collections in the bucket that the catalog neither has nor
   buried are reported and kept.
5. A shard whose manifests cannot all be read, or whose committed one is missing, is reported, and nothing below its
   prefix goes. The others are collected.

Why nothing that goes can come back: a new manifest names segments of its parent and new ones. A compactor that started
from a manifest that is gone cannot commit: the pointer has moved. And one that slept for ever so long over its uploads
looks for the mark after it has created its manifest and before it commits. If there is none, any mark comes later, and
so does the round that would delete, which sees the manifest. If there is one, it does not commit, nor does anybody
who finds the manifest.

Manifests go first: a crash in between leaves segments without a name, never a name without its segment.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Counter, Gauge

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.manifest.model import condemned_key, decode, parse_key
from shared.objects.open import PROBES
from shared.objects.port import ObjectInfo, ObjectNotFound, ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

DELETED: Final = Counter("polychrome_garbage_deleted", "Objects that were deleted as garbage, by kind.", ["kind"])
DELETED_BYTES: Final = Counter("polychrome_garbage_deleted_bytes", "Bytes of objects deleted as garbage.")

UNLISTED: Final = Gauge(
    "polychrome_garbage_unlisted_collections", "Collections in the bucket that the catalog neither has nor deleted."
)
BROKEN_SHARDS: Final = Gauge(
    "polychrome_garbage_broken_shards", "Shards without garbage collection: a manifest of theirs cannot be read."
)

SHOWN_MAX: Final = 100
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
class Laid:
    """A collection's shards are numbered from `first`; since when. Lower ones are gone for good."""

    first: int
    since_s: float


@dataclass(frozen=True, slots=True)
class Judged:
    """Manifests by key, and the living shards whose committed one is missing."""

    kept: list[str]
    condemned: list[str]
    broken: set[ShardKey]
    strange: list[str]
    """Manifests of collections that are neither living nor dead."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What one round deleted."""

    manifests: int
    others: int
    bytes: int
    empty: list[str] = field(default_factory=list)
    """Dead collections of which nothing is left."""


def judge_manifests(
    objects: Iterable[ObjectInfo],
    shards: Mapping[ShardKey, Pointer | None],
    now: float,
    periods: Periods,
    laid: Mapping[str, Laid],
    dead: Set[str] = frozenset(),
) -> Judged:
    """Step 1. `shards` has the pointer of every shard of every living collection, those that are being built included;
    `laid` the collections that got other shards; `dead` those that were deleted.
    """
    created: dict[ShardKey, dict[int, ObjectInfo]] = defaultdict(dict)
    for info in objects:
        parsed = parse_key(info.key)
        if parsed is not None:
            collection, shard, version = parsed
            created[collection, shard][version] = info
    kept: list[str] = []
    condemned: list[str] = []
    broken: set[ShardKey] = set()
    strange: list[str] = []
    living = {collection for collection, _ in shards}
    for key in created.keys() - shards.keys():
        if key[0] in living:
            one = laid.get(key[0])
            gone = one is not None and key[1] < one.first and one.since_s <= now - periods.retention_s
            # What is neither gone nor known may be about to be: none of our business.
            (condemned if gone else kept).extend(info.key for info in created[key].values())
        elif key[0] not in dead:
            strange.extend(info.key for info in created[key].values())
    for key, pointer in shards.items():
        versions = created[key]
        if pointer is not None and pointer.version not in versions:
            broken.add(key)
        for version, info in versions.items():
            # By the next one, or by the one after it, where that one was given up.
            replaced_s = max(versions.get(version + step, info).modified_s for step in (1, 2))
            current = pointer is None or version >= pointer.version
            recent = replaced_s > now - periods.retention_s
            (kept if current or recent or key in broken else condemned).append(info.key)
    return Judged(sorted(kept), sorted(condemned), broken, sorted(strange))


@dataclass(frozen=True, slots=True)
class Sentences:
    """Marks to leave, files to delete, and marks to delete after them."""

    condemned: list[str]
    files: list[str]
    marks: list[str]


def judge_segments(
    objects: Iterable[ObjectInfo],
    living: frozenset[str],
    referenced: frozenset[str],
    broken: Set[ShardKey],
    now: float,
    periods: Periods,
    guarded: Set[str] = frozenset(),
) -> Sentences:
    """Step 3, over the segments of living collections but those in `guarded`."""
    files: dict[str, list[ObjectInfo]] = defaultdict(list)
    for info in objects:
        found = _SEGMENT.fullmatch(info.key)
        if not found or shard_of_path(found[1]) in broken:
            continue
        collection = collection_of(info.key)
        if collection in living and collection not in guarded:
            files[found[1]].append(info)
    sentences = Sentences([], [], [])
    for path, segment in files.items():
        mark = condemned_key(path)
        marked = any(info.key == mark for info in segment)
        if marked:
            sentences.marks.append(mark)
        if path not in referenced and marked:
            sentences.files.extend(info.key for info in segment if info.key != mark)
        elif path not in referenced and max(info.modified_s for info in segment) <= now - periods.grace_s:
            sentences.condemned.append(mark)
    return sentences


def judge_dead(
    objects: Iterable[ObjectInfo],
    dead_since: Mapping[str, float],
    referenced: frozenset[str],
    now: float,
    periods: Periods,
    guarded: Set[str] = frozenset(),
) -> list[str]:
    """Step 4: keys below the prefixes of dead collections. `dead_since` says when each was buried; of those in
    `guarded`, all segments stay.
    """
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
        if not ((segment := _SEGMENT.fullmatch(info.key)) and (collection in guarded or segment[1] in referenced))
    ]


def judge_probes(objects: Iterable[ObjectInfo], now: float, periods: Periods) -> list[str]:
    """Keys of what processes that died while they tried the store left."""
    return [info.key for info in objects if info.key.startswith(PROBES) and info.modified_s <= now - periods.grace_s]


def shard_of_path(path: str) -> ShardKey:
    """The shard below whose prefix a segment stands."""
    collection, shard, *_ = path.split("/")
    return collection, int(shard)


def collection_of(key: str) -> str | None:
    """The collection below whose prefix the key stands; None for objects that belong to none."""
    found = _COLLECTION.match(key)
    return found[1] if found else None


class Garbage:
    """The collector. Remembers what manifests name (they never change), and which collections it found unlisted."""

    def __init__(self, objects: ObjectStore, clock: Clock, periods: Periods) -> None:
        self._objects = objects
        self._clock = clock
        self._periods = periods
        self._unlisted: set[str] = set()
        self._named: dict[str, frozenset[str]] = {}

    async def collect(
        self,
        shards: Mapping[ShardKey, Pointer | None],
        graves: Mapping[str, float],
        laid: Mapping[str, Laid] | None = None,
        lineage: Mapping[str, Sequence[str]] | None = None,
    ) -> Collected:
        """One round. All are read from the whole catalog before the call: every shard of every collection that is not
        deleted, with its pointer; collections that were deleted, each since when; collections that got other shards, as
        far as a snapshot knows it; the ancestors of forks. Raises Unavailable.
        """
        found, now = await self._survey()
        living = frozenset(collection for collection, _ in shards)
        dead = {one: since for one, since in graves.items() if one not in living}
        self._report_unlisted({one for info in found if (one := collection_of(info.key))} - living - dead.keys())
        judged = judge_manifests(found, shards, now, self._periods, laid or {}, dead.keys())
        referenced, unreadable = await self._references([*judged.kept, *judged.strange])
        broken = judged.broken | unreadable
        guarded = {ancestor for collection, _ in broken for ancestor in (lineage or {}).get(collection, ())}
        BROKEN_SHARDS.set(len(broken))
        for collection, shard in sorted(judged.broken):
            log.error("committed_manifest_missing", collection=collection, shard=shard)
        manifests = [key for key in judged.condemned if _shard_of_manifest(key) not in broken]
        segments = judge_segments(found, living, referenced, broken, now, self._periods, guarded)
        others = [
            *segments.files,
            *judge_dead(found, dead, referenced, now, self._periods, guarded),
            *judge_probes(found, now, self._periods),
        ]
        sizes = {info.key: info.bytes for info in found}
        for kind, doomed in (("manifest", manifests), ("other", others), ("mark", segments.marks)):
            await self._delete(kind, doomed, sizes)
        for mark in segments.condemned:
            await self._objects.put(mark, b"garbage")
        size = sum(sizes[key] for key in [*manifests, *others])
        if manifests or others:
            log.info("collected garbage", manifests=len(manifests), others=len(others), bytes=size)
        return Collected(len(manifests), len(others), size, self._empty(found, dead, now))

    async def _delete(self, kind: str, doomed: Sequence[str], sizes: Mapping[str, int]) -> None:
        for start in range(0, len(doomed), DELETE_AT_ONCE):
            some = doomed[start : start + DELETE_AT_ONCE]
            await self._objects.delete(some)
            DELETED.labels(kind).inc(len(some))
            DELETED_BYTES.inc(sum(sizes[key] for key in some))

    def _empty(self, found: Iterable[ObjectInfo], dead: Mapping[str, float], now: float) -> list[str]:
        """A grave stays for the grace period at least: a compactor may still be uploading."""
        left = {collection_of(info.key) for info in found}
        return [one for one, since in dead.items() if one not in left and since <= now - self._periods.grace_s]

    def _report_unlisted(self, unlisted: set[str]) -> None:
        """Collections that two rounds in a row found: one that was made meanwhile is listed by the second."""
        lasting = unlisted & self._unlisted
        UNLISTED.set(len(lasting))
        if lasting:
            log.error("collections_without_a_row", collections=sorted(lasting)[:SHOWN_MAX], number=len(lasting))
        self._unlisted = unlisted

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

    async def _references(self, kept: Sequence[str]) -> tuple[frozenset[str], set[ShardKey]]:
        """Step 2: the paths of all segments that these manifests name; and the shards of those that cannot be read."""
        missing = iter([key for key in kept if key not in self._named])
        unreadable: set[ShardKey] = set()

        async def load_one_after_the_other() -> None:
            for key in missing:
                try:
                    self._named[key] = await self._load(key)
                except Corrupt as error:
                    unreadable.add(_shard_of_manifest(key))
                    log.error("manifest_unreadable", key=key, message=error.message)  # noqa: TRY400 (no stack: data is at fault)

        ended = await asyncio.gather(
            *(load_one_after_the_other() for _ in range(LOADS_AT_ONCE)), return_exceptions=True
        )
        for failure in ended:
            if failure is not None:
                raise failure
        self._named = {key: self._named[key] for key in kept if key in self._named}
        return frozenset().union(*self._named.values()), unreadable

    async def _load(self, key: str) -> frozenset[str]:
        try:
            manifest = decode(await self._objects.get(key))
        except ObjectNotFound:
            raise Corrupt(f"{key} was listed and is gone: somebody else deletes in this bucket") from None
        return frozenset(segment.info.path for segment in manifest.segments)


def _shard_of_manifest(key: str) -> ShardKey:
    collection, shard, _ = parse_key(key) or ("", 0, 0)
    return collection, shard
