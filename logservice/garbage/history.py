"""The rules by which the history of collections becomes garbage: sealed log objects (`shared.history`), and how long
replaced manifests are kept beside them. Pure, as `logservice.garbage.plan` is.

A read as of a time in the history begins with the manifest of that time, which was replaced later, and goes on with log
that was sealed later. So whatever is older than the history may go, but for the newest object of those: it alone says
when the entry before the first one of the history was written. What no manifest covers yet stays in any case, and so
does what a restoration to the newest roots would read (`logservice.garbage.roots`).

Objects overlap: writes of the durability class `bucket` leave small ones, which a trim seals once more. Of those the
small ones go soon, because the large one has all that they have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType
from typing import Final

from shared.cluster.placement import ShardKey
from shared.log.state import Pointer
from shared.objects.keys import SealedRange, parse_log_key
from shared.objects.port import ObjectInfo

CONTAINED_S: Final = 300.0
"""Age at which an object goes that another one contains, in seconds: whoever has just listed it still finds it."""

NOTHING_NEEDED: Final[Mapping[ShardKey, tuple[int, int]]] = MappingProxyType({})


def plan_sealed_logs(
    objects: Sequence[ObjectInfo],
    now_s: float,
    pointers: Mapping[ShardKey, Pointer | None],
    kept_s: Mapping[str, float],
    gone: Set[ShardKey],
    spared: Set[ShardKey],
    needed: Mapping[ShardKey, tuple[int, int]] = NOTHING_NEEDED,
    erasing: Set[str] = frozenset(),
) -> list[str]:
    """Keys to delete. `pointers` are those of every shard of living collections, `kept_s` is for how long each of these
    collections keeps what was replaced; `gone` are shards of earlier layouts whose time is over, nothing of `spared`
    goes. `needed` are the first position and the end (exclusive) of the log that restorations read, whatever its age.
    Of collections in `erasing` nothing old stays for the sake of the times.
    """
    by_shard: dict[ShardKey, list[tuple[SealedRange, ObjectInfo]]] = defaultdict(list)
    for info in objects:
        sealed = parse_log_key(info.key)
        if sealed is not None:
            by_shard[sealed.collection, sealed.shard].append((sealed, info))
    deleted: list[str] = []
    for shard, of_shard in by_shard.items():
        if shard in spared:
            continue
        begin, end = needed.get(shard, (0, 0))
        found = [(sealed, info) for sealed, info in of_shard if sealed.end <= begin or sealed.first >= end]
        if shard in gone:
            deleted += [info.key for _, info in found]
        elif shard in pointers and shard[0] in kept_s:
            pointer = pointers[shard]
            covers = pointer.covers if pointer else 0
            keys = {*_old(found, now_s - kept_s[shard[0]], covers, keep_newest=shard[0] not in erasing)}
            deleted += sorted(keys | {*_contained(found, now_s - CONTAINED_S)})
    return deleted


def _contained(found: Sequence[tuple[SealedRange, ObjectInfo]], before_s: float) -> list[str]:
    """Keys of objects that were written before, and of which another one has every position, and more."""
    contained, reached = list[str](), 0
    for sealed, info in sorted(found, key=lambda each: (each[0].first, -each[0].end)):
        if sealed.end <= reached and info.modified_s <= before_s:
            contained.append(info.key)
        reached = max(reached, sealed.end)
    return contained


def _old(
    found: Sequence[tuple[SealedRange, ObjectInfo]], before_s: float, covers: int, *, keep_newest: bool
) -> list[str]:
    """Keys of objects that were written before, are covered, and (with `keep_newest`) are not the newest of these."""
    old = [(sealed, info) for sealed, info in found if info.modified_s <= before_s and sealed.end <= covers]
    newest = max((sealed.end for sealed, _ in old), default=0)
    return [info.key for sealed, info in old if sealed.end < newest or not keep_newest]
