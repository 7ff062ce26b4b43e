"""The rules by which objects in the bucket are garbage, without effects, over one listing of the bucket and one view of
the catalog. `logservice.garbage.collector` gets these, and carries the plan out.

No process deletes objects while it works; crashes and lost races leave files behind. Time only ever keeps things
longer: what may be deleted follows from manifests. Ages are told by the bucket's clock.

1. Manifests (`plan_manifests`). Of a living shard, kept are: the one that the pointer names and all later ones (a later
   one may be waiting to be completed), and every one that was replaced less than `retention_s` ago, or within the
   history that its collection keeps, judged by the age of the manifest after it (readers, backups and forks may still
   use it). The others are deleted, and so are all manifests of shards that a collection does not have any more, once it
   got others more than `retention_s` ago and a snapshot says so. What the newest roots name is kept as well
   (`logservice.garbage.roots`).
2. References. Every kept manifest of every living collection is read, and every one of collections that the catalog
   neither has nor buried: a fork has manifests before it has a row. A segment that any of them names is kept, under
   whichever collection's prefix it stands: a fork names its origin's segments. Where a manifest of a fork cannot be
   read, all segments of its ancestors are kept.
3. Segments (`plan_segments`) that no manifest names, all of whose files are older than `grace_s`, are condemned: a mark
   is left beside their files. In a later round that still sees no manifest name it, a condemned segment goes, the mark
   last; if one does, the mark alone goes. The grace period only saves work: it covers the usual compaction under way.
4. A collection is dead (`plan_dead_collections`) when the catalog says that it was deleted (its grave), never because
   the catalog does not have it. What its prefix holds goes, but for references of others, when all of it and the grave
   are older than `grace_s`. A grave with nothing left is forgotten. Collections in the bucket that the catalog neither
   has nor buried are reported and kept.
5. A shard whose manifests cannot all be read, or whose committed one is missing, is *broken*: it is reported, and
   nothing below its prefix goes. The others are collected.
6. Sealed log objects (`logservice.garbage.history`) go when they are older than the history of their collection, but
   for those that a restoration to its newest roots reads.
7. Of a collection that is being erased (`erasing`), or from which something is, neither the retention nor the history
   keeps anything: what was replaced, and what nothing names, goes after `erasing_s`. All other rules hold.

Why nothing that goes can come back: a new manifest names segments of its parent and new ones. A compactor that started
from a manifest that is gone cannot commit: the pointer has moved. And one that slept for ever so long over its uploads
looks for the mark after it has created its manifest and before it commits. If there is none, any mark comes later, and
so does the round that would delete, which sees the manifest. If there is one, it does not commit, nor does any process
that finds the manifest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from logservice.garbage.history import plan_sealed_logs
from logservice.garbage.roots import RootReferences
from shared.cluster.placement import ShardKey
from shared.log.state import Pointer
from shared.objects.keys import (
    PROBES,
    collection_of,
    condemned_key,
    parse_log_key,
    parse_manifest_key,
    parse_segment_file_key,
)
from shared.objects.port import ObjectInfo

NO_ROOTS: Final = RootReferences()


@dataclass(frozen=True, slots=True)
class Periods:
    """Times for which what may be garbage is kept, in seconds: files that no manifest names for `grace_s`, manifests
    that were replaced for `retention_s`, both for at most `erasing_s` in collections that are being erased.
    """

    grace_s: float
    retention_s: float
    erasing_s: float = 60.0

    def graceful_s(self, erasing: bool) -> float:
        """Seconds for which files that nothing names are kept."""
        return min(self.grace_s, self.erasing_s) if erasing else self.grace_s

    def retained_s(self, erasing: bool) -> float:
        """Seconds for which manifests that were replaced are kept, but for a history."""
        return min(self.retention_s, self.erasing_s) if erasing else self.retention_s


@dataclass(frozen=True, slots=True)
class LayoutChange:
    """That a collection got other shards at `since_s`, numbered from `first`: lower ones are gone for good."""

    first: int
    since_s: float


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything in the bucket, and the time by which its age is judged (seconds since the epoch)."""

    objects: Sequence[ObjectInfo]
    now_s: float


@dataclass(frozen=True, slots=True)
class CatalogView:
    """The collections of the whole catalog. It is read before the bucket is listed: a collection that is created
    meanwhile is unlisted for one round, and kept.
    """

    pointers: Mapping[ShardKey, Pointer | None]
    """The pointers of every shard of every collection that is not deleted, those that are being built included."""

    graves: Mapping[str, float]
    """Collections that were deleted, each since when (seconds since the epoch)."""

    layout_changes: Mapping[str, LayoutChange] = field(default_factory=dict)
    """The layout changes of collections that got other shards, as far as a snapshot of the catalog knows them."""

    ancestors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The collections that each fork comes from."""

    histories: Mapping[str, float] = field(default_factory=dict)
    """For how many seconds collections keep their history (`shared.catalog.history`)."""

    erasing: Set[str] = frozenset()
    """Collections, living ones and dead ones, of which something is being erased."""

    @property
    def living(self) -> frozenset[str]:
        """Ids of the collections that are not deleted."""
        return frozenset(collection for collection, _ in self.pointers)

    @property
    def dead(self) -> dict[str, float]:
        """The deleted collections, each since when."""
        living = self.living
        return {collection: since_s for collection, since_s in self.graves.items() if collection not in living}

    def kept_s(self, collection: str, periods: Periods) -> float:
        """For how many seconds what was replaced of a collection is kept."""
        if collection in self.erasing:
            return periods.retained_s(erasing=True)
        return max(periods.retention_s, self.histories.get(collection, 0.0))

    def is_gone(self, shard: ShardKey, listing: Listing, periods: Periods) -> bool:
        """Whether a living collection had the shard in a layout that it gave up longer than the retention ago."""
        change = self.layout_changes.get(shard[0])
        kept_s = periods.retained_s(shard[0] in self.erasing)
        over = change is not None and shard[1] < change.first and change.since_s <= listing.now_s - kept_s
        return over and shard not in self.pointers

    def unlisted(self, listing: Listing) -> set[str]:
        """Collections in the bucket that the catalog neither has nor buried."""
        found = {collection for info in listing.objects if (collection := collection_of(info.key))}
        return found - self.living - self.dead.keys()


@dataclass(frozen=True, slots=True)
class ManifestPlan:
    """The plan for the manifests, by their keys, sorted."""

    kept: list[str]
    deleted: list[str]
    unlisted: list[str]
    """Those of collections that the catalog neither has nor buried: kept, too."""

    broken: set[ShardKey]
    """Living shards whose committed manifest is missing."""


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """The plan for segments that no manifest names, by keys of objects."""

    condemned: list[str]
    """Marks to leave."""
    files: list[str]
    """Files to delete, whose segments were condemned in an earlier round."""
    marks: list[str]
    """Marks to delete, after the files."""


@dataclass(frozen=True, slots=True)
class GarbagePlan:
    """The plan of one round, in this order; all are keys of objects.

    What names goes before what is named: a crash in between leaves segments without a name, never a name without its
    segment.
    """

    roots: list[str]
    """To delete, before the manifests that only they name."""
    manifests: list[str]
    """To delete."""
    others: list[str]
    """To delete: files of segments, what dead collections left, probes."""
    marks: list[str]
    """Marks of condemned segments to delete."""
    condemned: list[str]
    """Marks of condemned segments to leave."""
    forgotten: list[str]
    """Ids of dead collections of which the bucket has nothing: their graves are of no use any more."""


def plan_manifests(
    listing: Listing, view: CatalogView, periods: Periods, roots: RootReferences = NO_ROOTS
) -> ManifestPlan:
    """Step 1; `roots` are those that are kept."""
    plan = ManifestPlan([], [], [], set())
    living, dead, manifests = view.living, view.dead, _manifests(listing)
    for shard, versions in manifests.items():
        if shard in view.pointers:
            continue
        keys = [info.key for info in versions.values()]
        if shard[0] in living:
            # A shard that is neither gone nor known may be about to be one: it is left alone.
            gone = view.is_gone(shard, listing, periods) and not roots.protect(shard)
            for key in keys:
                (plan.deleted if gone and key not in roots.manifests else plan.kept).append(key)
        elif shard[0] not in dead:
            plan.unlisted.extend(keys)
    for shard, pointer in view.pointers.items():
        kept_s = view.kept_s(shard[0], periods)
        _plan_living(plan, shard, pointer, manifests.get(shard, {}), listing.now_s - kept_s, roots)
    for keys in (plan.kept, plan.deleted, plan.unlisted):
        keys.sort()
    return plan


def _manifests(listing: Listing) -> dict[ShardKey, dict[int, ObjectInfo]]:
    """The manifests in the bucket, by shard and version."""
    found: dict[ShardKey, dict[int, ObjectInfo]] = defaultdict(dict)
    for info in listing.objects:
        parsed = parse_manifest_key(info.key)
        if parsed is not None:
            collection, shard, version = parsed
            found[collection, shard][version] = info
    return found


def _plan_living(
    plan: ManifestPlan,
    shard: ShardKey,
    pointer: Pointer | None,
    versions: Mapping[int, ObjectInfo],
    replaced_before_s: float,
    roots: RootReferences,
) -> None:
    """Adds the manifests of a living shard to the plan."""
    if pointer is not None and pointer.version not in versions:
        plan.broken.add(shard)
    for version, info in versions.items():
        # Replaced by the next version, or by the one after it, where that one was given up.
        replaced_s = max(versions.get(version + step, info).modified_s for step in (1, 2))
        current = pointer is None or version >= pointer.version
        recent = replaced_s > replaced_before_s or info.key in roots.manifests
        (plan.kept if current or recent or shard in plan.broken else plan.deleted).append(info.key)


def plan_garbage(
    listing: Listing,
    view: CatalogView,
    periods: Periods,
    manifests: ManifestPlan,
    referenced: frozenset[str],
    broken: Set[ShardKey],
    roots: Sequence[str] = (),
    named: RootReferences = NO_ROOTS,
) -> GarbagePlan:
    """Steps 3 to 6, and all that is to be done. `referenced`: paths of the segments that manifests name; `broken`:
    shards whose committed manifest is missing, or of which one cannot be read; `roots`: those that go; `named`: what
    the others refer to.
    """
    protected = {ancestor for collection, _ in broken for ancestor in view.ancestors.get(collection, ())}
    segments = plan_segments(listing, view.living - protected, referenced, broken, periods, view.erasing)
    dead = plan_dead_collections(listing, view.dead, referenced, protected, periods, view.erasing)
    old_history = _old_history(listing, view, periods, broken, named)
    left = {collection_of(info.key) for info in listing.objects}
    return GarbagePlan(
        roots=list(roots),
        manifests=[key for key in manifests.deleted if shard_of_manifest(key) not in broken],
        others=[*segments.files, *dead, *old_history, *plan_probes(listing, periods)],
        marks=segments.marks,
        condemned=segments.condemned,
        # A grave stays for the grace period at least: a compactor may still be uploading.
        forgotten=[
            collection
            for collection, since_s in view.dead.items()
            if collection not in left and since_s <= listing.now_s - periods.grace_s
        ],
    )


def plan_segments(
    listing: Listing,
    collections: Set[str],
    referenced: frozenset[str],
    broken: Set[ShardKey],
    periods: Periods,
    erasing: Set[str] = frozenset(),
) -> SegmentPlan:
    """Step 3, over the segments of these living collections."""
    files: dict[str, list[ObjectInfo]] = defaultdict(list)
    for info in listing.objects:
        path = parse_segment_file_key(info.key)
        if path and shard_of_segment(path) not in broken and collection_of(info.key) in collections:
            files[path].append(info)
    plan = SegmentPlan([], [], [])
    for path, segment in files.items():
        mark = condemned_key(path)
        is_condemned = any(info.key == mark for info in segment)
        if is_condemned:
            plan.marks.append(mark)
        if path in referenced:
            continue
        if is_condemned:
            plan.files.extend(info.key for info in segment if info.key != mark)
            continue
        grace_s = periods.graceful_s(shard_of_segment(path)[0] in erasing)
        if max(info.modified_s for info in segment) <= listing.now_s - grace_s:
            plan.condemned.append(mark)
    return plan


def plan_dead_collections(
    listing: Listing,
    dead: Mapping[str, float],
    referenced: frozenset[str],
    protected: Set[str],
    periods: Periods,
    erasing: Set[str] = frozenset(),
) -> list[str]:
    """Step 4: keys to delete below the prefixes of dead collections. `dead` says since when each is; of those in
    `protected` all segments stay.
    """
    objects: dict[str, list[ObjectInfo]] = defaultdict(list)
    for info in listing.objects:
        collection = collection_of(info.key)
        if collection is not None and collection in dead:
            objects[collection].append(info)
    return [
        info.key
        for collection, found in objects.items()
        if max(dead[collection], *(info.modified_s for info in found))
        <= listing.now_s - periods.graceful_s(collection in erasing)
        for info in found
        if not ((path := parse_segment_file_key(info.key)) and (collection in protected or path in referenced))
    ]


def _old_history(
    listing: Listing, view: CatalogView, periods: Periods, broken: Set[ShardKey], roots: RootReferences
) -> list[str]:
    """Step 6: keys of sealed log objects to delete."""
    sealed = [found for info in listing.objects if (found := parse_log_key(info.key)) is not None]
    shards = {(found.collection, found.shard) for found in sealed if found.collection in view.living}
    gone = {shard for shard in shards if view.is_gone(shard, listing, periods)}
    kept_s = {collection: view.kept_s(collection, periods) for collection, _ in shards}
    return plan_sealed_logs(
        listing.objects, listing.now_s, view.pointers, kept_s, gone, broken, roots.logs, view.erasing
    )


def plan_probes(listing: Listing, periods: Periods) -> list[str]:
    """Keys of objects that processes left which died while they tried the store."""
    return [
        info.key
        for info in listing.objects
        if info.key.startswith(PROBES) and info.modified_s <= listing.now_s - periods.grace_s
    ]


def shards_of(listing: Listing, collections: Set[str]) -> set[ShardKey]:
    """Every shard of these collections of which there is a manifest."""
    return {shard for shard in _manifests(listing) if shard[0] in collections}


def shard_of_segment(path: str) -> ShardKey:
    """The shard below whose prefix a segment stands, from the segment's path."""
    collection, shard, *_ = path.split("/")
    return collection, int(shard)


def shard_of_manifest(key: str) -> ShardKey:
    """The shard of a manifest, from its key. Raises ValueError when it is not a manifest's."""
    parsed = parse_manifest_key(key)
    if parsed is None:
        raise ValueError(f"{key} is not the key of a manifest")
    collection, shard, _ = parsed
    return collection, shard
