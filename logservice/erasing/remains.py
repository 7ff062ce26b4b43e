"""The objects in the bucket that may still have what is to be erased. Pure, over a listing of one collection's objects.

A shard is *clean* from its first manifest on that covers the erasure's barrier and whose segments have no dead rows:
nothing of what was deleted before the barrier is in them, nor in what is made of them. All that is older is suspect:

* manifests before the clean one;
* segments that no manifest from the clean one on names, if a file of theirs is as old as it or older;
* roots of positions before the barrier;
* sealed log objects that begin before the barrier;
* everything of shards that the collection does not have any more.

Of a collection that was deleted, everything is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from shared.objects.keys import (
    parse_log_key,
    parse_manifest_key,
    parse_root_key,
    parse_segment_file_key,
    parse_shard_key,
)
from shared.objects.port import ObjectInfo


@dataclass(frozen=True, slots=True)
class CleanShard:
    """A clean shard: the version of a manifest that is clean, and the paths of the segments that it names."""

    version: int
    segments: frozenset[str]


@dataclass(frozen=True, slots=True)
class Remains:
    """Keys of objects that are suspect, by kind, and the paths of the segments among them."""

    keys: Mapping[str, Sequence[str]]
    segments: frozenset[str]

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of objects by kind."""
        return {kind: len(keys) for kind, keys in self.keys.items()}

    def without(self, segments: Collection[str]) -> Remains:
        """These remains but for files of these segments, which others have a right to."""
        keys = {
            kind: left
            for kind, found in self.keys.items()
            if (left := [key for key in found if _segment_of(key) not in segments])
        }
        return Remains(keys, self.segments - set(segments))


def remains_of_deleted(objects: Sequence[ObjectInfo]) -> Remains:
    """Everything that is left of a deleted collection; `objects` are those below its prefix."""
    return _remains([info.key for info in objects])


def remains_of_living(objects: Sequence[ObjectInfo], barrier: int, clean: Mapping[int, CleanShard]) -> Remains:
    """The suspect objects of a living collection; `objects` are those below its prefix, `barrier` is the position
    before which what is to be erased was deleted, `clean` has all of its shards.
    """
    since_s = {
        shard: info.modified_s
        for info in objects
        if (found := parse_manifest_key(info.key)) is not None
        and (shard := found[1]) in clean
        and found[2] == clean[shard].version
    }
    oldest: dict[str, float] = {}
    for info in objects:
        if (path := parse_segment_file_key(info.key)) is not None:
            oldest[path] = min(info.modified_s, oldest.get(path, info.modified_s))
    return _remains([info.key for info in objects if _is_suspect(info.key, barrier, clean, since_s, oldest)])


def _is_suspect(
    key: str,
    barrier: int,
    clean: Mapping[int, CleanShard],
    since_s: Mapping[int, float],
    oldest: Mapping[str, float],
) -> bool:
    if (root := parse_root_key(key)) is not None:
        return root[2] < barrier
    of_shard = parse_shard_key(key)
    if of_shard is None:
        return False
    shard = clean.get(of_shard.shard)
    if shard is None:
        return True
    if (manifest := parse_manifest_key(key)) is not None:
        return manifest[2] < shard.version
    if (sealed := parse_log_key(key)) is not None:
        return sealed.first < barrier
    path = parse_segment_file_key(key)
    made_before = path is not None and oldest[path] <= since_s.get(of_shard.shard, float("inf"))
    return path not in shard.segments and made_before


def _remains(keys: Sequence[str]) -> Remains:
    by_kind: dict[str, list[str]] = {}
    for key in keys:
        of_shard = parse_shard_key(key)
        by_kind.setdefault(of_shard.kind if of_shard is not None else "roots", []).append(key)
    segments = frozenset(path for key in keys if (path := _segment_of(key)) is not None)
    return Remains(by_kind, segments)


def _segment_of(key: str) -> str | None:
    return parse_segment_file_key(key)


def counted(*counts: Mapping[str, int]) -> dict[str, int]:
    """Numbers of objects by kind, the higher one of each: what is there at several times is the same or less."""
    total: Counter[str] = Counter()
    for each in counts:
        total |= Counter(each)
    return dict(total)
