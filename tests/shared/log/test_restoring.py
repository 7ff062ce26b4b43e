"""The state of a collection that a restoration finds already there: Redis went back to a moment within its creation, or
within an earlier restoration. Found by tests/simulation.
"""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from shared.cluster.placement import Layout
from shared.log.lifecycle import Lifecycle
from shared.log.log import Log
from shared.log.state import Pointer
from shared.redis.keys import Keys

FIXED = {"space": "l2", "shards": 1, "ef_construction": 100, "max_neighbors": 16}
OLDER, NEWER = Pointer(3, "a", 48), Pointer(4, "b", 76)


async def restore(lifecycle: Lifecycle, collection: str, head: int, epoch: int, pointer: Pointer) -> int:
    return await lifecycle.restore(
        collection, head, epoch, pointer.covers, database_key="db", fixed=FIXED, generation=1, dimension=2,
        layout=Layout(0, 1), pointers=[pointer],
    )  # fmt: skip


async def pointer_of(log: Log, collection: str) -> Pointer | None:
    [state] = await log.states([(collection, 0)])
    assert state is not None
    return state.pointer


async def test_a_state_of_an_unfinished_creation_gets_what_the_bucket_has(redis: Redis, keys: Keys) -> None:
    lifecycle = Lifecycle(redis, keys)
    await lifecycle.create("c", "db", FIXED, 1)
    assert await restore(lifecycle, "c", 100, 1, NEWER) == 100
    assert await pointer_of(Log(redis, keys), "c") == NEWER


async def test_a_state_of_an_earlier_restoration_gets_what_was_compacted_after_it(redis: Redis, keys: Keys) -> None:
    lifecycle = Lifecycle(redis, keys)
    await restore(lifecycle, "c", 60, 1, OLDER)
    assert await restore(lifecycle, "c", 100, 2, NEWER) == 100
    assert await pointer_of(Log(redis, keys), "c") == NEWER


async def test_a_slow_leader_takes_nothing_back_from_a_later_restoration(redis: Redis, keys: Keys) -> None:
    lifecycle = Lifecycle(redis, keys)
    await restore(lifecycle, "c", 100, 2, NEWER)
    assert await restore(lifecycle, "c", 60, 1, OLDER) == 100
    assert await restore(lifecycle, "c", 100, 2, OLDER) == 100
    assert await pointer_of(Log(redis, keys), "c") == NEWER


async def test_no_collection_has_no_shards(redis: Redis, keys: Keys) -> None:
    with pytest.raises(ValueError, match="0 shards"):
        await Lifecycle(redis, keys).create("c", "db", FIXED | {"shards": 0}, 1)
