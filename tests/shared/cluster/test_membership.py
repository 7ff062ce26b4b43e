"""A member that cannot be read is as good as not announced, and hides no other one."""

from __future__ import annotations

from redis.asyncio import Redis

from shared.cluster.membership import Member, Membership
from shared.redis.keys import Keys


async def test_members_that_cannot_be_read_are_left_out_until_they_announce_themselves_again(
    redis: Redis, keys: Keys
) -> None:
    membership = Membership(redis, keys, "queryworker")
    damaged, whole = Member("a", "127.0.0.1:1"), Member("b", "127.0.0.1:2", draining=True)
    for member in (damaged, whole):
        await membership.announce(member, 60)
    for garbled in (b"\xff", b"{}", b'{"id":"a","address":7,"draining":false}'):
        await redis.hset(keys.members("queryworker"), "a", garbled)
        assert await membership.members() == [whole]
    await redis.hdel(keys.members("queryworker"), "a")
    assert await membership.members() == [whole]
    await membership.announce(damaged, 60)
    assert await membership.members() == [damaged, whole]
