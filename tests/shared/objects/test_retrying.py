from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.errors import Corrupt, Unavailable, UnknownOutcome
from shared.objects.memory import MemoryStore
from shared.objects.port import ObjectInfo, ObjectNotFound, ObjectStore, VolumeFull
from shared.objects.retrying import RetryingStore, RetryLimits


class FakeClock:
    def __init__(self) -> None:
        self.time = 0.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds


class Faulty(MemoryStore):
    """Fails as its script says: one entry per call, None for success; `after` does the work before it fails."""

    def __init__(self, *faults: Exception | None, after: bool = False) -> None:
        super().__init__(lambda: 0.0)
        self.faults = list(faults)
        self.after = after

    def fault(self) -> Exception | None:
        return self.faults.pop(0) if self.faults else None

    async def get(self, key: str) -> bytes:
        if error := self.fault():
            raise error
        return await super().get(key)

    async def create(self, key: str, data: bytes) -> bool:
        error = self.fault()
        if error is None or self.after:
            created = await super().create(key, data)
        if error is not None:
            raise error
        return created

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        seen = 0
        async for info in super().list(prefix):
            yield info
            seen += 1
            if seen == 2 and (error := self.fault()):
                raise error


AWAY = Unavailable("away")
LOST = UnknownOutcome("lost")


def retrying(store: ObjectStore, **limits: Any) -> tuple[RetryingStore, FakeClock]:
    clock = FakeClock()
    return RetryingStore(store, clock, limits=RetryLimits(**limits), randomness=random.Random(1)), clock


async def test_short_failures_are_waited_out_with_growing_pauses() -> None:
    inner = Faulty(AWAY, AWAY, AWAY)
    store, clock = retrying(inner)
    await MemoryStore.put(inner, "a", b"1")
    assert await store.get("a") == b"1"
    assert len(clock.sleeps) == 3
    assert clock.sleeps[0] <= 0.05
    assert clock.sleeps[2] > clock.sleeps[0]


async def test_the_deadline_ends_it_with_the_last_error() -> None:
    store, clock = retrying(Faulty(*[AWAY] * 1000), deadline_s=5.0)
    with pytest.raises(Unavailable, match="away"):
        await store.get("a")
    assert 3.0 < clock.time <= 5.0


@pytest.mark.parametrize("error", [ObjectNotFound("a"), Corrupt("x"), VolumeFull("x")])
async def test_other_errors_pass_at_once(error: Exception) -> None:
    store, clock = retrying(Faulty(error))
    with pytest.raises(type(error)):
        await store.get("a")
    assert clock.sleeps == []


async def test_a_create_whose_answer_was_lost_recognises_its_own_bytes() -> None:
    inner = Faulty(LOST, after=True)
    store, _ = retrying(inner)
    assert await store.create("a", b"mine")
    assert await MemoryStore.get(inner, "a") == b"mine"


async def test_a_create_whose_answer_was_lost_does_not_claim_the_bytes_of_another() -> None:
    inner = Faulty(LOST)
    await MemoryStore.put(inner, "a", b"theirs")
    store, _ = retrying(inner)
    assert not await store.create("a", b"mine")


async def test_a_create_that_was_refused_at_once_lost_even_to_equal_bytes() -> None:
    inner = Faulty()
    await MemoryStore.put(inner, "a", b"same")
    store, _ = retrying(inner)
    assert not await store.create("a", b"same")


async def test_a_create_that_stays_unsure_says_so() -> None:
    store, _ = retrying(Faulty(LOST, *[AWAY] * 1000), deadline_s=1.0)
    with pytest.raises(UnknownOutcome):
        await store.create("a", b"mine")


async def test_a_create_that_was_never_sent_is_not_unsure() -> None:
    store, _ = retrying(Faulty(*[AWAY] * 1000), deadline_s=1.0)
    with pytest.raises(Unavailable) as raised:
        await store.create("a", b"mine")
    assert not isinstance(raised.value, UnknownOutcome)


async def test_an_attempt_that_hangs_is_given_up_and_repeated() -> None:
    class HangsOnce(MemoryStore):
        hung = False

        async def create(self, key: str, data: bytes) -> bool:
            if not self.hung:
                self.hung = True
                await super().create(key, data)
                await asyncio.Event().wait()
            return await super().create(key, data)

    store, _ = retrying(HangsOnce(lambda: 0.0), attempt_s=0.01)
    assert await store.create("a", b"mine")


async def test_a_list_that_broke_goes_on_where_it_was() -> None:
    inner = Faulty(AWAY)
    for key in ("a", "b", "c", "d"):
        await MemoryStore.put(inner, key, b"")
    store, clock = retrying(inner)
    assert [info.key async for info in store.list("")] == ["a", "b", "c", "d"]
    assert len(clock.sleeps) == 1
