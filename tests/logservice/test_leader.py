"""The leader's loops, when Redis changes and the lease is lost at the same moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logservice.leader import Leader, RedisChanged

NONE: Any = None


class _Config:
    periods = None


def leader() -> Leader:
    """A leader that has nothing but its loops."""
    config: Any = _Config()
    return Leader(NONE, NONE, NONE, NONE, NONE, config)


async def test_a_leader_that_loses_its_lease_while_it_ends_its_loops_does_not_lead_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ending = asyncio.Event()

    async def sees_another_redis() -> None:
        raise RedisChanged

    async def takes_its_time() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.sleep(0.01)

    monkeypatch.setattr(Leader, "_loops", lambda *_: [takes_its_time(), sees_another_redis()])
    working = asyncio.create_task(leader()._work(NONE, NONE))
    await ending.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_a_leader_whose_redis_has_changed_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    async def sees_another_redis() -> None:
        raise RedisChanged

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("other")

    monkeypatch.setattr(Leader, "_loops", lambda *_: [other(), sees_another_redis()])
    await leader()._work(NONE, NONE)
    assert ended == ["other"]
