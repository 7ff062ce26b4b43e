"""The pairs of a metadata key and a type of value that the records of a collection have had: the schema's growth.

They are a set beside the log, which every append may add to, within a limit. It may be large and hardly ever changes,
so whoever reads collections keeps the sets that it has read, and asks only whether they are the same still:

1. The state's field `grown` is the request id of the append that added to the set last.
2. A set is known as of its mark: that field, the epoch in which the collection was restored, and its size. A Redis that
   went back to an older set has an older mark, and what is added then makes a new one.
3. A set is read together with its mark, in one transaction.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from redis.asyncio import Redis

from shared.errors import QuotaExceeded
from shared.redis.client import retry_idempotent
from shared.redis.keys import Keys

Pairs = frozenset[tuple[str, str]]

CACHED_PAIRS_MAX: Final = 500_000
"""Pairs of all collections together that are kept."""


class PairsFull(QuotaExceeded):
    """The append would have brought the collection more pairs than it may have. Nothing was written."""

    code = "pairs_full"

    def __init__(self, usage: int = 0, most: int = 0) -> None:
        super().__init__(
            "Quota exceeded: 'Number of metadata keys' exceeded quota limit for action 'Add': "
            f"current usage of {usage} exceeds limit of {most}"
        )


class Mark(NamedTuple):
    """Changes whenever the set of pairs does, as step 2 above says."""

    grown: bytes | None
    epoch: bytes | None
    size: int


class PairsCache:
    """The pairs of the collections that were read last, `pairs_max` of them in all."""

    def __init__(self, pairs_max: int = CACHED_PAIRS_MAX) -> None:
        self._pairs_max = pairs_max
        self._total = 0
        self._kept: OrderedDict[str, tuple[Mark, Pairs]] = OrderedDict()

    def get(self, collection_id: str, mark: Mark) -> Pairs | None:
        """The pairs, None when they are not known as of this mark."""
        kept = self._kept.get(collection_id)
        if kept is None or kept[0] != mark:
            return None
        self._kept.move_to_end(collection_id)
        return kept[1]

    def put(self, collection_id: str, mark: Mark, pairs: Pairs) -> None:
        """Keeps pairs that were read together with the mark; the longest unused make room for them."""
        self._drop(collection_id)
        self._kept[collection_id] = (mark, pairs)
        self._total += len(pairs)
        while self._total > self._pairs_max:
            self._drop(next(iter(self._kept)))

    def _drop(self, collection_id: str) -> None:
        kept = self._kept.pop(collection_id, None)
        self._total -= len(kept[1]) if kept else 0


class PairsReader:
    """Reads the pairs of collections whose states and numbers of pairs the caller has read."""

    def __init__(self, redis: Redis, keys: Keys, cache: PairsCache | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._cache = cache or PairsCache()

    async def read(self, states: Mapping[str, tuple[Mapping[bytes, bytes], int]]) -> dict[str, Pairs]:
        """The pairs of collections, by their ids; of each the state hash is given, and how many pairs it has. One that
        cannot be read is as good as lost, and left out. Raises Unavailable.
        """
        marks = {each: Mark(state.get(b"grown"), state.get(b"epoch"), count) for each, (state, count) in states.items()}
        found: dict[str, Pairs] = {}
        missing: list[str] = []
        for collection_id, mark in marks.items():
            known = self._cache.get(collection_id, mark) if mark.size else Pairs()
            if known is None:
                missing.append(collection_id)
            else:
                found[collection_id] = known
        if missing:
            replies = await retry_idempotent(lambda: self._fetch(missing), writes=False)
            for collection_id, ((grown, epoch), members) in zip(missing, replies, strict=True):
                found[collection_id], garbled = split_pairs(members)
                if not garbled:  # else it will have the same mark when it is whole again
                    pairs = found[collection_id]
                    self._cache.put(collection_id, Mark(grown, epoch, len(members)), pairs)
        return found

    async def _fetch(self, ids: Sequence[str]) -> list[Any]:
        """For each collection its mark's fields and its pairs, both as of one moment."""
        replies: list[Any] = []
        for collection_id in ids:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hmget(self._keys.state(collection_id), "grown", "epoch")
                pipeline.smembers(self._keys.metadata_keys(collection_id))
                replies.append(await pipeline.execute())
        return replies


def split_pairs(members: Iterable[bytes]) -> tuple[Pairs, list[bytes]]:
    """The pairs of a stored set, and its members that cannot be read."""
    pairs, garbled = set[tuple[str, str]](), list[bytes]()
    for member in members:
        try:
            key, kind = orjson.loads(member)
        except (ValueError, TypeError):
            garbled.append(member)
            continue
        if isinstance(key, str) and isinstance(kind, str):
            pairs.add((key, kind))
        else:
            garbled.append(member)
    return frozenset(pairs), garbled
