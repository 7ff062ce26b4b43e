"""Forks whose maker is cancelled at any point: nothing stays reserved, and a commit that has begun comes to its end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shared.catalog.changes import Changes
from shared.catalog.families import Families
from shared.catalog.forking import Forking
from shared.errors import Unavailable
from shared.log.forks import Forks
from shared.manifest.store import ManifestStore
from tests.compactor.conftest import Shop
from tests.compactor.test_rebuild import churn, compact_all, everything
from tests.forks.family import Family


class Blocked:
    """Replaces a method: a call does what it did, or nothing yet, and then waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, after: bool) -> None:
        self.there = asyncio.Event()
        self.go_on = asyncio.Event()
        real: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def wait() -> None:
            self.there.set()
            await self.go_on.wait()

        async def blocked(*args: Any, **kwargs: Any) -> Any:
            if not after:
                await wait()
            done = await real(*args, **kwargs)
            if after:
                await wait()
            return done

        monkeypatch.setattr(owner, name, blocked)


async def forking(family: Family, shop: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(family.forker().fork(await family.db(), shop.collection.id, "fork"))


async def assert_nothing_is_left(family: Family, shop: Any) -> None:
    await shop.refresh()
    assert await family.forking.count(shop.collection) == 0
    assert await shop.catalog.collections.get(await family.db(), "fork") is None
    await family.collect()
    assert await family.owners() <= {shop.collection.id}
    assert [owner.collection_id async for owner in family.lifecycle.owners()] == [shop.collection.id]


POINTS = [
    (Families, "add", False),
    (Families, "add", True),
    (ManifestStore, "create", False),
    (ManifestStore, "create", True),
    (Forks, "copy", False),
    (Forks, "copy", True),
    (Forks, "open", False),
    (Forks, "open", True),
]


@pytest.mark.parametrize(("owner", "name", "after"), POINTS)
async def test_a_fork_that_is_cancelled_before_its_commit_leaves_nothing(
    shop: Shop, family: Family, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, after: bool
) -> None:
    await churn(shop, random.Random(1), 2)
    await compact_all(shop, shop.collection.layout)
    await churn(shop, random.Random(2), 1)
    point = Blocked(monkeypatch, owner, name, after=after)
    fork = await forking(family, shop)
    await point.there.wait()
    fork.cancel()
    await asyncio.sleep(0)
    point.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await fork
    await assert_nothing_is_left(family, shop)


async def test_a_second_cancellation_does_not_end_the_giving_up(
    shop: Shop, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    await churn(shop, random.Random(1), 1)
    copying = Blocked(monkeypatch, Forks, "copy", after=False)
    giving_up = Blocked(monkeypatch, Forking, "give_up", after=False)
    fork = await forking(family, shop)
    await copying.there.wait()
    fork.cancel()
    await giving_up.there.wait()
    for _ in range(2):
        fork.cancel()
        await asyncio.wait([fork], timeout=0.01)
        assert not fork.done()
    giving_up.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await fork
    await assert_nothing_is_left(family, shop)


async def test_giving_up_has_a_deadline(shop: Shop, family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.collections.forking.GIVE_UP_S_MAX", 0.05)
    await churn(shop, random.Random(1), 1)
    copying = Blocked(monkeypatch, Forks, "copy", after=False)
    Blocked(monkeypatch, Forking, "give_up", after=False)  # for ever
    fork = await forking(family, shop)
    await copying.there.wait()
    fork.cancel()
    done, _ = await asyncio.wait([fork], timeout=5)
    assert done
    assert fork.cancelled()


async def test_a_commit_that_has_begun_is_not_cut_off(
    shop: Shop, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    await churn(shop, random.Random(1), 2)
    committing = Blocked(monkeypatch, Changes, "count", after=False)
    fork = await forking(family, shop)
    await committing.there.wait()
    fork.cancel()
    await asyncio.sleep(0)
    committing.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await fork
    await shop.refresh()
    assert await family.forking.count(shop.collection) == 1
    forked = await shop.catalog.collections.get(await family.db(), "fork")
    assert forked is not None
    assert await everything(family.member(shop, forked)) == shop.model


async def test_a_failure_is_told_even_if_giving_up_fails_as_well(
    shop: Shop, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise Unavailable("Redis is away")

    async def lost(*_: Any, **__: Any) -> None:
        raise Unavailable("object storage is away")

    monkeypatch.setattr(Forks, "copy", lost)
    monkeypatch.setattr(Forking, "give_up", fails)
    await churn(shop, random.Random(1), 1)
    with pytest.raises(Unavailable, match="object storage"):
        await (await forking(family, shop))


async def test_a_stopping_frontend_waits_until_cancelled_forks_have_given_up(
    shop: Shop, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    await churn(shop, random.Random(1), 1)
    copying = Blocked(monkeypatch, Forks, "copy", after=False)
    giving_up = Blocked(monkeypatch, Forking, "give_up", after=False)
    forker = family.forker()
    fork = asyncio.create_task(forker.fork(await family.db(), shop.collection.id, "fork"))
    await copying.there.wait()
    fork.cancel()
    closing = asyncio.create_task(forker.close())
    await giving_up.there.wait()
    assert not closing.done()
    giving_up.go_on.set()
    await closing
    await asyncio.wait([fork])
    await assert_nothing_is_left(family, shop)
