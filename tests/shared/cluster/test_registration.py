"""A server that leaves is listed as draining for as long as it answers, and not a moment longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from shared.cluster.membership import Member, Membership
from shared.cluster.registration import Registration
from shared.redis.keys import Keys
from shared.rpc.client import RpcClient
from shared.rpc.server import RpcServer
from tests.shared.log.appending import eventually
from tests.shared.rpc.serving import Gate

HEARTBEAT_S = 0.02
DRAIN_S = 60.0


class _HeldMembership(Membership):
    """Announcements wait while `open` is not set; `waiting` says that one does."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        super().__init__(redis, keys, "queryworker")
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = asyncio.Event()

    async def announce(self, member: Member, ttl_s: float) -> None:
        if not self.open.is_set():
            self.waiting.set()
        await self.open.wait()
        await super().announce(member, ttl_s)


@asynccontextmanager
async def _draining(membership: Membership) -> AsyncIterator[tuple[Gate, asyncio.Task[None], Member]]:
    """A member that has said that it drains, with a call in flight; the draining; and how it should be listed."""
    gate = Gate()
    server, client = RpcServer({"slow": gate}), RpcClient()
    address = await server.start("127.0.0.1", 0)
    announced = Registration("w1", address, membership, server, HEARTBEAT_S)
    await announced.announce()
    heartbeat = asyncio.create_task(announced.heartbeat())
    call = client.begin(address, "slow", b"question", timeout_s=DRAIN_S)
    await gate.entered.wait()
    draining = asyncio.create_task(announced.drain(DRAIN_S))
    listed = Member("w1", address, draining=True)

    async def said_so() -> bool:
        return listed in await membership.members()

    await eventually(said_so)
    yield gate, draining, listed
    assert bytes(await call) == b"question"
    await draining
    heartbeat.cancel()
    await client.close()
    await server.close()


async def test_a_draining_member_is_listed_until_its_last_call_is_answered(redis: Redis, keys: Keys) -> None:
    """Callers ask another member for what one that is listed no more was asked: all its calls would be made twice."""
    membership = Membership(redis, keys, "queryworker")
    async with _draining(membership) as (gate, draining, listed):
        for _ in range(3):
            await membership.leave(listed.id)  # as if its last heartbeat had expired

            async def listed_again() -> bool:
                return await membership.members() == [listed]

            await eventually(listed_again)
        assert not draining.done()
        gate.open()
    assert await membership.members() == []


async def test_a_heartbeat_on_its_way_does_not_bring_back_a_member_that_leaves(redis: Redis, keys: Keys) -> None:
    membership = _HeldMembership(redis, keys)
    async with _draining(membership) as (gate, draining, _):
        membership.open.clear()
        await membership.waiting.wait()
        gate.open()
        done, _ = await asyncio.wait([draining], timeout=0.2)
        assert not done, "left while it was being announced"
        membership.open.set()
        await draining
        await asyncio.sleep(5 * HEARTBEAT_S)
        assert await membership.members() == []
