"""The rules by which roots are garbage, and what roots protect. Pure; a part of `logservice.garbage.plan`'s step 1.

Of a living collection, kept are: the newest root, and every one that was replaced less than `retention_s` ago, judged
by the age of the root after it. What a kept root names is kept, whatever replaced it: it is what the collection is
restored to when Redis is lost. So are all manifests of the layout that the newest root names, while that is not the
present one: a single shard is restored to its newest manifest. The others go, the roots before the manifests that only
they name.

A root *leans* that does not restore the collection by itself: one with log, for it is of use with that alone, and one
that cannot be read. While all roots after it lean, a root is kept as well, however old it is; and behind the manifests
of those that lean, and of the one before them, the sealed log is kept that a restoration to their positions reads. A
shard that is held up may keep the next root from being written for longer than the retention. Of a single shard a
manifest that covers the position of a root with log is as good as a later root.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType

from shared.cluster.placement import ShardKey
from shared.log.state import Pointer
from shared.manifest.roots import Root
from shared.objects.keys import manifest_key, parse_root_key
from shared.objects.port import ObjectInfo
from shared.records.model import FIRST_POSITION


@dataclass(frozen=True, slots=True)
class RootPlan:
    """The plan for the roots of living collections, by their keys, sorted."""

    kept: list[str]
    deleted: list[str]


@dataclass(frozen=True, slots=True)
class RootReferences:
    """The references of the kept roots: keys of manifests; for each collection the first shard of its newest root's
    layout; and of shards the first position of the sealed log that is kept, and its end (exclusive). `unreadable` are
    collections of which a kept root cannot be read: nothing of them goes. `leaning` are the keys of roots that lean.
    """

    manifests: frozenset[str] = frozenset()
    first_shards: Mapping[str, int] = field(default_factory=dict)
    unreadable: Set[str] = frozenset()
    logs: Mapping[ShardKey, tuple[int, int]] = field(default_factory=dict)
    leaning: Set[str] = frozenset()

    def protect(self, shard: tuple[str, int]) -> bool:
        """Whether the shard (id of the collection, number) is of the newest root's layout, or of a later one."""
        first = self.first_shards.get(shard[0])
        return first is not None and shard[1] >= first


def plan_roots(
    objects: Iterable[ObjectInfo],
    living: Set[str],
    replaced_before_s: float,
    leaning: Set[str] = frozenset(),
    erasing: Mapping[str, float] = MappingProxyType({}),
) -> RootPlan:
    """The plan for roots among the objects of a listing; `replaced_before_s` is the time since which a root may be
    replaced and is kept, and `erasing` has another one for some collections; `leaning` are the keys of those that are
    known to lean.
    """
    roots: dict[str, list[tuple[int, int, ObjectInfo]]] = defaultdict(list)
    for info in objects:
        parsed = parse_root_key(info.key)
        if parsed is not None and parsed[0] in living:
            collection, epoch, position = parsed
            roots[collection].append((epoch, position, info))
    plan = RootPlan([], [])
    for collection, found in roots.items():
        before_s = erasing.get(collection, replaced_before_s)
        ordered = [info for *_, info in sorted(found, key=lambda root: root[:2])]
        needed = True  # every root after this one leans
        for info, after in zip(reversed(ordered), [None, *reversed(ordered[1:])], strict=True):
            recent = after is not None and after.modified_s > before_s
            (plan.kept if needed or recent else plan.deleted).append(info.key)
            needed = needed and info.key in leaning
    plan.kept.sort()
    plan.deleted.sort()
    return plan


def references_of(
    roots: Iterable[Root], unreadable: Set[str], pointers: Mapping[ShardKey, Pointer | None]
) -> RootReferences:
    """The references of these roots, all that are kept and can be read; `unreadable` are the keys of the others,
    `pointers` those of all shards of living collections.
    """
    ordered = sorted(roots, key=lambda root: (root.epoch, root.position))
    named = {
        manifest_key(root.collection, manifest.shard, manifest.version)
        for root in ordered
        for manifest in root.manifests
    }
    by_collection: dict[str, list[Root]] = defaultdict(list)
    for root in ordered:
        by_collection[root.collection].append(root)
    logs: dict[ShardKey, tuple[int, int]] = {}
    for of_collection in by_collection.values():
        logs |= _logs_behind(of_collection, pointers)
    return RootReferences(
        frozenset(named),
        {root.collection: root.shards.first for root in ordered},
        frozenset(key.partition("/")[0] for key in unreadable),
        logs,
        unreadable | {root.key for root in ordered if _leans(root, pointers)},
    )


def _leans(root: Root, pointers: Mapping[ShardKey, Pointer | None]) -> bool:
    """Whether the root is of use with log alone, and nothing is as good as a later one."""
    pointer = pointers.get((root.collection, root.shards.first)) if root.shards.count == 1 else None
    return root.with_log and (pointer is None or pointer.covers < root.position)


def _logs_behind(roots: Sequence[Root], pointers: Mapping[ShardKey, Pointer | None]) -> dict[ShardKey, tuple[int, int]]:
    """The sealed log, by shard, that restorations to a collection's newest roots read, which lean; `roots` are all that
    it has, ascending.
    """
    last: list[Root] = []
    for root in reversed(roots):
        last.append(root)
        if not _leans(root, pointers):
            break
    end = max((root.position for root in last if _leans(root, pointers)), default=0)
    firsts: dict[ShardKey, int] = {}
    for root in last if end else ():
        for number, pointer in zip(root.shards.numbers, root.pointers, strict=True):
            shard = root.collection, number
            firsts[shard] = min(firsts.get(shard, end), pointer.covers if pointer else FIRST_POSITION)
    return {shard: (first, end) for shard, first in firsts.items()}
