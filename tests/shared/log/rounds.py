"""A log service's part in the rounds of a collection with several shards, for tests that have none."""

from __future__ import annotations

from redis.asyncio import Redis

from shared.cluster.placement import Layout
from shared.log.cuts import Cuts
from shared.redis.client import command
from shared.redis.keys import Keys


async def begin_round(redis: Redis, keys: Keys, collection_id: str) -> None:
    """Lets all shards be compacted up to the head. Of a collection with one shard nothing holds them back."""
    layout = Layout.decode(await command(redis, "HGET", keys.state(collection_id), "layout"))
    if layout.count > 1:
        cuts = Cuts(redis, keys)
        [state] = (await cuts.read({collection_id: layout})).values()
        assert await cuts.begin(state) == state.head
