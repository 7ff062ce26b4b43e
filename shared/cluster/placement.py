"""Placement: the shard that holds a record, and the workers that serve a shard.

Both are pure hashes. The first is part of the stored format (a shard's segments hold exactly the ids that hash to it);
the second is advice only: any worker can serve any shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xxhash

from shared.vectors.arrays import Hashes, Int64Array

ShardKey = tuple[str, int]
"""Id of the collection, number of the shard."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The shards of a collection at one time: `count` of them, numbered from `first`.

    No two layouts of a collection have a number in common. So a number says which layout its user means, and whatever
    belongs to a shard (stream, manifests, segments) belongs to one layout alone.
    """

    first: int
    count: int

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.count)

    def __contains__(self, number: int) -> bool:
        return self.first <= number < self.first + self.count

    def encode(self) -> str:
        """The stored form: scripts compare it and take it apart."""
        return f"{self.first} {self.count}"

    @classmethod
    def decode(cls, text: bytes | str) -> Layout:
        first, count = text.split()
        return cls(int(first), int(count))


_MIX: Final = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def shard_of(ids: Sequence[str], shards: int) -> Int64Array:
    """The shard of each id: xxh3-64 of its UTF-8 bytes, modulo `shards`. Never changes for a collection."""
    if shards == 1:
        return np.zeros(len(ids), dtype=np.int64)
    return (hashes(ids) % np.uint64(shards)).astype(np.int64)


def rank(shard_key: str, workers: Sequence[str]) -> list[str]:
    """`workers`, the best one for `shard_key` first (rendezvous hashing: highest random weight).

    The order depends on the names alone, so every frontend agrees; a worker that joins or leaves moves only the
    shards it takes or had.
    """
    (weight,) = weights(hashes([shard_key]), hashes(workers))
    return [workers[place] for place in np.argsort(weight)[::-1]]


def hashes(names: Sequence[str]) -> Hashes:
    """xxh3-64 of each name."""
    return np.fromiter((xxhash.xxh3_64_intdigest(name.encode()) for name in names), dtype=np.uint64, count=len(names))


def weights(shards: Hashes, workers: Hashes) -> Hashes:
    """[shards, workers]: how much each worker wants each shard. The two hashes are mixed as by splitmix64: every bit of
    either decides about every bit of the weight.
    """
    mixed = shards[:, None] ^ workers
    for shift, factor in _MIX:
        mixed ^= mixed >> shift
        mixed *= factor
    mixed ^= mixed >> np.uint64(31)
    return mixed
