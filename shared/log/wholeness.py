"""Whether a shard's stream is whole: what a Redis that went back is believed by."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import Redis

from shared.redis.keys import Keys
from shared.redis.scripts import Script

WHOLENESS: Final = Script("shared.log", "wholeness")


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
