"""Whether a shard's stream is whole: what a Redis that went back is believed by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis

from shared.log.state import after_position
from shared.redis.keys import Keys
from shared.redis.scripts import Script

WHOLENESS: Final = Script("shared.log", "wholeness")
SPANS: Final = Script("shared.log", "spans")
SPANS_PAGE: Final = 64
"""Entries whose spans are read at a time: each is taken out of its stream with its payload, inside the server."""


async def is_whole(redis: Redis, keys: Keys, collection_id: str, shard: int, covers: int) -> bool:
    """Whether the stream has every entry that was ever written at the position `covers` or later, up to the newest one
    that the state knows of, each behind the entry that it was written behind. The server follows the chain: no payload
    leaves it. Raises Unavailable.
    """
    script_keys = [keys.state(collection_id), keys.log(collection_id, shard)]
    after, chain = "", ""
    while True:
        reply: list[Any] = await WHOLENESS.run(redis, script_keys, [shard, covers, after, chain], writes=False)
        match reply:
            case [b"MORE", last, last_chain]:
                after, chain = last.decode(), last_chain.decode()
            case [outcome]:
                return bool(outcome == b"WHOLE")


async def reach_one_end(redis: Redis, keys: Keys, collection_id: str, covers: Mapping[int, int]) -> bool:
    """Whether the streams of a collection's shards, each whole behind what its manifest covers as far as it goes, go as
    far as they must, where no state says which entry was the newest of each. `covers` is by shard.

    1. Positions are dense, so an append from behind all manifests is there when the entries of all streams together
       have as many operations as it has positions.
    2. Of the appends before, that are in the manifests of some shards, a shard has all when its stream has an entry
       behind all manifests: its chain leads there.
    """
    furthest = max(covers.values())
    operations: dict[tuple[int, int], int] = defaultdict(int)
    for shard, covered in covers.items():
        after, entries = after_position(furthest), 0
        while page := await SPANS.run(redis, [keys.log(collection_id, shard)], [after, SPANS_PAGE], writes=False):
            for _, first, end, count in page:
                operations[int(first), int(end)] += int(count)
            entries += len(page)
            after = page[-1][0].decode()
        if covered < furthest and not entries:
            return False
    return all(count == end - first for (first, end), count in operations.items())
