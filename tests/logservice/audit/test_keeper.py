"""The heads of audit logs: what they hold against, and what they allow to be deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import pytest

from logservice.audit import keeper as keeper_module
from logservice.audit.keeper import AuditKeeper, days_since
from shared.errors import Unavailable
from shared.objects.keys import AuditPart, audit_heads_key
from shared.objects.memory import MemoryStore
from shared.objects.port import ObjectNotFound
from shared.tenancy.audit import Actor, ActorKind, AuditOutcome, Event, day_of, moment_of
from shared.tenancy.audit_chain import NOTHING, seal
from shared.tenancy.audit_heads import HEADS_KEPT, Heads, decode_heads
from tests.frontend.access.making import SteppedClock

DAY_S = 24 * 3600.0


class Chains:
    """A bucket with chains of parts, and a keeper of them."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.bucket = MemoryStore(self.clock.now)
        self.ends: dict[str, tuple[int, str]] = {}
        self.keeper = self.another()

    def another(self, retention_days: int = 3) -> AuditKeeper:
        return AuditKeeper(self.bucket, self.clock, "logservice-1", retention_days)

    async def write(self, name: str, *, closed: bool = False) -> AuditPart:
        """The next part of a chain, of today."""
        chain = f"{name}-{1764504000000}0123abcd"
        number, prev = self.ends.get(chain, (0, NOTHING))
        time = moment_of(self.clock.now())
        event = Event(time=time, actor=Actor(ActorKind.PROCESS), route="x", outcome=AuditOutcome.ALLOWED)
        sealed = seal(AuditPart(day_of(time), chain, number), prev, [event], closed=closed)
        await self.bucket.put(sealed.place.key, sealed.data)
        self.ends[chain] = (number + 1, sealed.sha256)
        return sealed.place

    async def keys(self, prefix: str) -> list[str]:
        return [info.key async for info in self.bucket.list(prefix)]

    async def heads(self) -> Heads:
        key = (await self.keys("audit/heads/"))[-1]
        return decode_heads(await self.bucket.get(key), key)

    async def lasts(self) -> Sequence[tuple[str, int, int]]:
        return [(chain[0], head.first, head.last) for chain, head in (await self.heads()).heads.items()]


@pytest.fixture
def chains() -> Chains:
    return Chains()


async def test_the_end_of_each_chain_is_written_down_once_it_has_moved(chains: Chains) -> None:
    await chains.keeper.step()
    assert await chains.keys("audit/heads/") == []
    await chains.write("a")
    await chains.write("b")
    await chains.keeper.step()
    await chains.keeper.step()
    assert await chains.keys("audit/heads/") == [audit_heads_key(1)], "nothing has changed since"
    part = await chains.write("a", closed=True)
    await chains.keeper.step()
    heads = await chains.heads()
    assert (heads.number, await chains.lasts()) == (2, [("a", 0, 1), ("b", 0, 0)])
    assert heads.heads[part.chain].sha256 == chains.ends[part.chain][1]
    assert heads.heads[part.chain].closed


async def test_another_log_service_goes_on_from_what_is_in_the_bucket(chains: Chains) -> None:
    await chains.write("a")
    await chains.keeper.step()
    other = chains.another()
    await chains.write("b")
    await other.step()
    await chains.keeper.step()
    assert (await chains.heads()).number == 2
    assert await chains.lasts() == [("a", 0, 0), ("b", 0, 0)]


async def test_what_was_written_days_ago_is_seen_by_the_first_round_after_an_outage(chains: Chains) -> None:
    await chains.write("a")
    await chains.keeper.step()
    await chains.write("a")
    chains.clock.now_s += 2 * DAY_S
    await chains.another(0).step()
    assert await chains.lasts() == [("a", 0, 1)]


async def test_heads_never_take_back_what_they_have_said(chains: Chains) -> None:
    await chains.write("a")
    last = await chains.write("a")
    await chains.keeper.step()
    await chains.bucket.delete([last.key])
    await chains.write("b")
    await chains.keeper.step()
    assert await chains.lasts() == [("a", 0, 1), ("b", 0, 0)]


async def test_heads_that_were_taken_away_are_written_anew_behind_a_gap(
    chains: Chains, capsys: pytest.CaptureFixture[str]
) -> None:
    await chains.write("a")
    await chains.keeper.step()
    await chains.write("b")
    await chains.keeper.step()
    await chains.bucket.delete([audit_heads_key(2)])
    await chains.keeper.step()
    assert "audit_heads_missing" in capsys.readouterr().out
    assert await chains.keys("audit/heads/") == [audit_heads_key(1), audit_heads_key(3)]
    assert await chains.lasts() == [("a", 0, 0), ("b", 0, 0)]


async def test_heads_that_were_replaced_are_not_believed(chains: Chains, capsys: pytest.CaptureFixture[str]) -> None:
    await chains.write("a")
    await chains.keeper.step()
    forged = msgspec.structs.replace(await chains.heads(), heads={}, sha256="")
    await chains.bucket.put(audit_heads_key(1), forged.encode())
    await chains.keeper.step()
    assert "audit_heads_replaced" in capsys.readouterr().out
    assert ((await chains.heads()).number, await chains.lasts()) == (2, [("a", 0, 0)])
    assert (await chains.heads()).follows != hashlib.sha256(forged.encode()).hexdigest()


async def test_damaged_heads_are_said_and_followed(chains: Chains, capsys: pytest.CaptureFixture[str]) -> None:
    await chains.write("a")
    await chains.keeper.step()
    await chains.bucket.put(audit_heads_key(2), b"{}")
    await chains.write("b")
    await chains.keeper.step()
    assert "audit_heads_damaged" in capsys.readouterr().out
    assert ((await chains.heads()).number, await chains.lasts()) == (3, [("a", 0, 0), ("b", 0, 0)])


async def test_only_the_newest_heads_stay(chains: Chains) -> None:
    for _ in range(HEADS_KEPT + 5):
        await chains.write("a")
        await chains.keeper.step()
    kept = await chains.keys("audit/heads/")
    heads = await chains.heads()
    assert (len(kept), kept[0], heads.oldest) == (HEADS_KEPT, audit_heads_key(6), 6)


async def test_parts_of_old_days_go_once_the_heads_say_so(chains: Chains) -> None:
    for _ in range(2):
        await chains.write("living")
    await chains.write("dead")
    await chains.keeper.step()
    for _ in range(5):
        chains.clock.now_s += DAY_S
        await chains.write("living")
        await chains.keeper.step()
    heads = await chains.heads()
    today = chains.clock.now()
    assert heads.kept_since == day_of(moment_of(today - 3 * DAY_S))
    assert await chains.lasts() == [("l", 3, 6)]
    days = {key.split("/")[1] for key in await chains.keys("audit/2")}
    assert days == {day_of(moment_of(today - number * DAY_S)) for number in range(4)}


async def test_for_ever_is_for_ever(chains: Chains) -> None:
    await chains.write("a")
    chains.clock.now_s += 5000 * DAY_S
    await chains.another(0).step()
    assert len(await chains.keys("audit/2")) == 1


async def test_a_round_deletes_a_bounded_number_and_the_next_ones_the_rest(
    chains: Chains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "EXPIRED_AT_ONCE", 4)
    for _ in range(6):
        await chains.write("a")
        chains.clock.now_s += DAY_S
    await chains.keeper.step()
    left = [len(await chains.keys("audit/2"))]
    chains.clock.now_s += 3 * DAY_S
    await chains.write("a")
    for _ in range(3):
        await chains.keeper.step()
        left.append(len(await chains.keys("audit/2")))
    assert left == [3, 1, 1, 1]
    assert await chains.lasts() == [("a", 6, 6)]


async def test_what_a_crash_left_of_old_days_is_deleted_by_the_next_round(chains: Chains) -> None:
    left = [await chains.write("a"), await chains.write("a")]
    data = [await chains.bucket.get(part.key) for part in left]
    await chains.keeper.step()
    chains.clock.now_s += 5 * DAY_S
    await chains.keeper.step()
    assert await chains.keys("audit/2") == []
    for part, each in zip(left[1:], data[1:], strict=True):
        await chains.bucket.put(part.key, each)
    await chains.keeper.step()
    assert await chains.keys("audit/2") == []
    assert await chains.lasts() == []


@pytest.mark.parametrize(
    ("day", "days"),
    [
        ("2026-03-01", ["2026-02-28", "2026-03-01", "2026-03-02"]),
        ("2026-02-28", ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]),
        ("2099-01-01", ["2026-02-28", "2026-03-01", "2026-03-02"]),
        ("2020-01-01", None),
        ("2026-99-99", None),
        ("", None),
    ],
)
def test_the_days_of_a_round_are_bounded_whatever_heads_say(day: str, days: list[str] | None) -> None:
    assert days_since(day, "2026-03-01") == days


async def test_heads_that_go_while_they_are_read_postpone_the_round(
    chains: Chains, monkeypatch: pytest.MonkeyPatch
) -> None:
    await chains.write("a")
    await chains.keeper.step()

    async def gone(key: str) -> bytes:
        raise ObjectNotFound(key)

    monkeypatch.setattr(chains.bucket, "get", gone)
    with pytest.raises(Unavailable):
        await chains.another().step()
