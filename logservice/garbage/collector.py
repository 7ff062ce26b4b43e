"""Garbage collection in the bucket: surveys it, reads manifests, and does what `logservice.garbage.plan` decides.

One collector at a time goes over the bucket, since only the leading log service does; two at once would do no harm. One
that slept through a restoration of Redis would: it knows other pointers. So the epoch is compared before each batch of
deletions.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Counter, Gauge

from logservice.garbage.plan import (
    CatalogView,
    GarbagePlan,
    Listing,
    Periods,
    plan_garbage,
    plan_manifests,
    shard_of_manifest,
    shards_of,
)
from logservice.garbage.roots import RootPlan, RootReferences, plan_roots, references_of
from shared.cluster.placement import ShardKey
from shared.errors import Corrupt
from shared.manifest.model import decode
from shared.manifest.roots import Root, RootStore
from shared.objects.keys import PROBES
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.process.telemetry import get_logger

DELETED: Final = Counter("polychrome_garbage_deleted_total", "Objects that were deleted as garbage, by kind.", ["kind"])
DELETED_BYTES: Final = Counter("polychrome_garbage_deleted_bytes_total", "Bytes of objects deleted as garbage.")

UNLISTED: Final = Gauge(
    "polychrome_garbage_unlisted_collections", "Collections in the bucket that the catalog neither has nor deleted."
)
BROKEN_SHARDS: Final = Gauge(
    "polychrome_garbage_broken_shards", "Shards without garbage collection: a manifest of theirs cannot be read."
)

SHOWN_MAX: Final = 100
"""Unlisted collections that one line of the log names."""
DELETED_PER_CALL: Final = 1000
LOADS_AT_ONCE: Final = 16

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Collected:
    """The deletions of one round: objects by kind, and their bytes."""

    manifests: int
    others: int
    bytes: int
    forgotten: list[str] = field(default_factory=list)
    """Dead collections of which nothing is left: their graves may be forgotten."""


class GarbageCollector:
    """Deletes garbage in rounds. Remembers what manifests name (they never change), and which collections it found
    unlisted.
    """

    def __init__(self, objects: ObjectStore, clock: Clock, periods: Periods) -> None:
        self._objects = objects
        self._clock = clock
        self._periods = periods
        self._unlisted: set[str] = set()
        self._segments_named: dict[str, frozenset[str]] = {}
        self._roots = RootStore(objects)
        self._loaded_roots: dict[str, Root] = {}
        self._one_round = asyncio.Lock()

    async def collect(self, view: CatalogView, require_same_epoch: Callable[[], Awaitable[None]]) -> Collected:
        """Does one round. `require_same_epoch` raises Unavailable when the cluster was restored since `view` was taken.
        It is called before each batch of changes, and ends the round. Raises Unavailable.
        """
        async with self._one_round:
            return await self._collect(view, require_same_epoch)

    async def _collect(self, view: CatalogView, require_same_epoch: Callable[[], Awaitable[None]]) -> Collected:
        listing = await self._survey()
        self._report_unlisted(view.unlisted(listing))
        roots, named = await self._roots_of(listing, view)
        manifests = plan_manifests(listing, view, self._periods, named)
        referenced, unreadable = await self._references([*manifests.kept, *manifests.unlisted])
        broken = manifests.broken | unreadable | shards_of(listing, named.unreadable)
        BROKEN_SHARDS.set(len(broken))
        for collection, shard in sorted(manifests.broken):
            log.error("committed_manifest_missing", collection=collection, shard=shard)
        plan = plan_garbage(listing, view, self._periods, manifests, referenced, broken, roots.deleted, named)
        sizes = {info.key: info.bytes for info in listing.objects}
        return await self._carry_out(plan, sizes, require_same_epoch)

    async def _carry_out(
        self, plan: GarbagePlan, sizes: Mapping[str, int], require_same_epoch: Callable[[], Awaitable[None]]
    ) -> Collected:
        """Deletes and marks in the plan's order. `sizes`: bytes of each object."""
        others = (("manifest", plan.manifests), ("other", plan.others), ("mark", plan.marks))
        for kind, keys in (("root", plan.roots), *others):
            for start in range(0, len(keys), DELETED_PER_CALL):
                await require_same_epoch()
                await self._delete(kind, keys[start : start + DELETED_PER_CALL], sizes)
        await require_same_epoch()
        for mark in plan.condemned:
            await self._objects.put(mark, b"garbage")
        size = sum(sizes[key] for key in (*plan.manifests, *plan.others))
        if plan.manifests or plan.others:
            log.info("garbage_collected", manifests=len(plan.manifests), others=len(plan.others), bytes=size)
        return Collected(len(plan.manifests), len(plan.others), size, plan.forgotten)

    async def _delete(self, kind: str, keys: Sequence[str], sizes: Mapping[str, int]) -> None:
        await self._objects.delete(keys)
        DELETED.labels(kind).inc(len(keys))
        DELETED_BYTES.inc(sum(sizes[key] for key in keys))

    def _report_unlisted(self, unlisted: set[str]) -> None:
        """Reports collections that two rounds in a row found: one that was made meanwhile is listed by the second."""
        lasting = unlisted & self._unlisted
        UNLISTED.set(len(lasting))
        if lasting:
            log.error("collections_without_a_row", collections=sorted(lasting)[:SHOWN_MAX], number=len(lasting))
        self._unlisted = unlisted

    async def _survey(self) -> Listing:
        """Everything in the bucket. Its age is judged by the earlier one of this process's clock and the bucket's,
        which the age of a fresh object tells: with a clock that is ahead, files that are being uploaded would be old.
        """
        probe = f"{PROBES}{uuid.uuid4().hex}"
        await self._objects.put(probe, b"what time is it?")
        now_s = self._clock.now()
        found = [info async for info in self._objects.list("")]
        await self._objects.delete([probe])
        bucket_s = [info.modified_s for info in found if info.key == probe]
        return Listing([info for info in found if info.key != probe], min([now_s, *bucket_s]))

    async def _roots_of(self, listing: Listing, view: CatalogView) -> tuple[RootPlan, RootReferences]:
        """The plan for the roots, and the references of those that are kept: which of them lean is known once they
        have been read.
        """
        leaning: Set[str] = frozenset()
        before_s = listing.now_s - self._periods.retention_s
        erasing = dict.fromkeys(view.erasing, listing.now_s - self._periods.retained_s(erasing=True))
        while True:
            plan = plan_roots(listing.objects, view.living, before_s, leaning, erasing)
            named = await self._named_by(plan.kept, view)
            if named.leaning <= leaning:
                return plan, named
            leaning = named.leaning

    async def _named_by(self, roots: Sequence[str], view: CatalogView) -> RootReferences:
        """The references of these roots."""
        unreadable: set[str] = set()

        async def load(key: str) -> None:
            try:
                self._loaded_roots[key] = await self._roots.load(key)
            except Corrupt as error:
                unreadable.add(key)
                log.error("root_unreadable", key=key, message=error.message)  # noqa: TRY400 (no stack: data is at fault)

        await map_concurrently(load, [key for key in roots if key not in self._loaded_roots], at_once=LOADS_AT_ONCE)
        self._loaded_roots = {key: self._loaded_roots[key] for key in roots if key in self._loaded_roots}
        return references_of(self._loaded_roots.values(), unreadable, view.pointers)

    async def _references(self, manifests: Sequence[str]) -> tuple[frozenset[str], set[ShardKey]]:
        """Step 2: the paths of all segments that these manifests name; and the shards of those that cannot be read."""
        unreadable: set[ShardKey] = set()

        async def load(key: str) -> None:
            try:
                self._segments_named[key] = await self._load(key)
            except Corrupt as error:
                unreadable.add(shard_of_manifest(key))
                log.error("manifest_unreadable", key=key, message=error.message)  # noqa: TRY400 (no stack: data is at fault)

        unknown = [key for key in manifests if key not in self._segments_named]
        await map_concurrently(load, unknown, at_once=LOADS_AT_ONCE)
        self._segments_named = {key: self._segments_named[key] for key in manifests if key in self._segments_named}
        return frozenset().union(*self._segments_named.values()), unreadable

    async def _load(self, key: str) -> frozenset[str]:
        """Paths of the segments that the manifest names. Raises Corrupt."""
        try:
            manifest = decode(await self._objects.get(key))
        except ObjectNotFound:
            raise Corrupt(f"{key} was listed and is gone: another program deletes in this bucket") from None
        return frozenset(segment.info.path for segment in manifest.segments)
