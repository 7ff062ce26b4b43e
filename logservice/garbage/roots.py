"""The rules by which roots are garbage, and what roots protect. Pure; a part of `logservice.garbage.plan`'s step 1.

Of a living collection, kept are: the newest root, and every one that was replaced less than `retention_s` ago, judged
by the age of the root after it. What a kept root names is kept, whatever replaced it: it is what the collection is
restored to when Redis is lost. So are all manifests of the layout that the newest root names, while that is not the
present one: a single shard is restored to its newest manifest. The others go, the roots before the manifests that only
they name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from shared.manifest.roots import Root
from shared.objects.keys import manifest_key, parse_root_key
from shared.objects.port import ObjectInfo


@dataclass(frozen=True, slots=True)
class RootPlan:
    """The plan for the roots of living collections, by their keys, sorted."""

    kept: list[str]
    deleted: list[str]


@dataclass(frozen=True, slots=True)
class RootReferences:
    """The references of the kept roots: keys of manifests, and for each collection the first shard of its newest root's
    layout. `unreadable` are collections of which a kept root cannot be read: nothing of them goes.
    """

    manifests: frozenset[str] = frozenset()
    first_shards: Mapping[str, int] = field(default_factory=dict)
    unreadable: Set[str] = frozenset()

    def protect(self, shard: tuple[str, int]) -> bool:
        """Whether the shard (id of the collection, number) is of the newest root's layout, or of a later one."""
        first = self.first_shards.get(shard[0])
        return first is not None and shard[1] >= first


def plan_roots(objects: Iterable[ObjectInfo], living: Set[str], replaced_before_s: float) -> RootPlan:
    """The plan for roots among the objects of a listing; `replaced_before_s` is the time since which a root may be
    replaced and is kept.
    """
    roots: dict[str, list[tuple[int, int, ObjectInfo]]] = defaultdict(list)
    for info in objects:
        parsed = parse_root_key(info.key)
        if parsed is not None and parsed[0] in living:
            collection, epoch, position = parsed
            roots[collection].append((epoch, position, info))
    plan = RootPlan([], [])
    for found in roots.values():
        ordered = [info for *_, info in sorted(found, key=lambda root: root[:2])]
        for place, info in enumerate(ordered):
            newest = place + 1 == len(ordered)
            kept = newest or ordered[place + 1].modified_s > replaced_before_s
            (plan.kept if kept else plan.deleted).append(info.key)
    plan.kept.sort()
    plan.deleted.sort()
    return plan


def references_of(roots: Iterable[Root], unreadable: Set[str]) -> RootReferences:
    """The references of these roots, all that are kept and can be read."""
    ordered = sorted(roots, key=lambda root: (root.epoch, root.position))
    named = {
        manifest_key(root.collection, manifest.shard, manifest.version)
        for root in ordered
        for manifest in root.manifests
    }
    return RootReferences(frozenset(named), {root.collection: root.shards.first for root in ordered}, unreadable)
