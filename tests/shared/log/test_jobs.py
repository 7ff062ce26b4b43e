"""Dirty marks, the queue of jobs, leases and membership."""

import asyncio

import pytest
from redis.asyncio import Redis

from shared.cluster.lease import Lease
from shared.cluster.membership import Member, Membership
from shared.errors import Unavailable
from shared.log.jobs import Job, Jobs
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.redis_server import RedisServer
from tests.shared.log.appending import eventually


async def test_a_server_that_is_away_is_unavailable_for_every_question(own_server: RedisServer, keys: Keys) -> None:
    async with open_redis(own_server.url) as redis:
        jobs = Jobs(redis, keys)
        assert await jobs.rebuilds() == []
        await asyncio.to_thread(own_server.kill)
        for question in (jobs.rebuilds, jobs.counts):
            with pytest.raises(Unavailable):
                await question()


@pytest.fixture
def jobs(redis: Redis, keys: Keys) -> Jobs:
    return Jobs(redis, keys)


async def test_marks_are_taken_once_oldest_first(jobs: Jobs) -> None:
    await jobs.mark_dirty([("a", 0)])
    await jobs.mark_dirty([("b", 1), ("a", 0)])
    await jobs.mark_dirty([])
    assert await jobs.take_dirty(10) == [("a", 0), ("b", 1)]
    assert await jobs.take_dirty(10) == []


async def test_the_most_urgent_job_goes_first_and_to_one_holder_only(jobs: Jobs) -> None:
    await jobs.put("low", 0, 1.0)
    await jobs.put("high", 1, 9.0)
    await jobs.put("low", 0, 2.0)
    assert await jobs.counts() == (2, 0)
    claims = await asyncio.gather(*(jobs.claim(f"h{i}", 30) for i in range(5)))
    assert sorted(claim.name for claim in claims if claim) == ["high:1", "low:0"]
    assert claims[0] == Job("high", 1)
    assert await jobs.counts() == (0, 2)


async def test_a_leased_job_is_not_queued_again_until_it_is_finished(jobs: Jobs) -> None:
    await jobs.put("c", 0, 1.0)
    job = await jobs.claim("h", 30)
    assert job is not None
    assert not await jobs.put("c", 0, 5.0)
    assert await jobs.renew(job, "h", 30)
    assert not await jobs.renew(job, "other", 30)
    assert not await jobs.finish(job, "other")
    assert await jobs.finish(job, "h")
    assert await jobs.put("c", 0, 5.0)


async def test_an_expired_job_can_be_queued_again_and_its_holder_learns_it(jobs: Jobs) -> None:
    await jobs.put("c", 0, 1.0)
    job = await jobs.claim("dead", 0.02)
    assert job is not None
    await eventually(lambda: jobs.put("c", 0, 1.0))
    assert await jobs.claim("alive", 30) == job
    assert not await jobs.renew(job, "dead", 30)
    assert not await jobs.finish(job, "dead")
    assert await jobs.renew(job, "alive", 30)


async def test_a_lease_has_one_holder(redis: Redis, keys: Keys) -> None:
    leases = [Lease(redis, keys, "l", f"h{i}", 30) for i in range(8)]
    won = await asyncio.gather(*(lease.acquire() for lease in leases))
    assert sum(won) == 1
    holder, other = leases[won.index(True)], leases[won.index(False)]
    assert await holder.acquire()
    assert await holder.renew()
    assert not await other.renew()
    await other.release()
    assert not await other.acquire()
    await holder.release()
    assert await other.acquire()


async def test_a_lease_expires(redis: Redis, keys: Keys) -> None:
    first, second = (Lease(redis, keys, "l", holder, 0.02) for holder in ("a", "b"))
    assert await first.acquire()
    await eventually(second.acquire)
    assert not await first.renew()


async def test_members_are_listed_until_they_leave_or_fall_silent(redis: Redis, keys: Keys) -> None:
    workers, frontends = (Membership(redis, keys, role) for role in ("queryworker", "frontend"))
    await workers.announce(Member("w2", "127.0.0.1:2"), 30)
    await workers.announce(Member("w1", "127.0.0.1:1"), 30)
    await workers.announce(Member("silent", "127.0.0.1:3"), 0.02)
    await frontends.announce(Member("f", "127.0.0.1:4"), 30)
    await workers.announce(Member("w1", "127.0.0.1:1", draining=True), 30)

    async def silence() -> bool:
        return len(await workers.members()) == 2

    await eventually(silence)
    assert await workers.members() == [Member("w1", "127.0.0.1:1", draining=True), Member("w2", "127.0.0.1:2")]
    await workers.leave("w2")
    assert [member.id for member in await workers.members()] == ["w1"]
    await workers.announce(Member("w1", "127.0.0.1:1"), 30)  # which also sweeps the silent one away
    assert await redis.hkeys(keys.members("queryworker")) == [b"w1"]
