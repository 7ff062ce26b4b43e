"""The audit log of a frontend: what leaves an event, and how events get into the bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict

from frontend.access.access_table import PUBLIC, TABLE
from frontend.access.authorization import Hidden
from frontend.audit import log as log_module
from frontend.audit.log import HEARTBEAT_S, REFUSALS_MAX, REFUSALS_S, AuditLog
from frontend.audit.settings import audit_mode
from shared.errors import Unavailable, UnknownOutcome
from shared.objects.keys import parse_audit_key
from shared.objects.memory import MemoryStore
from shared.tenancy.api_keys import draw_key
from shared.tenancy.audit import ActorKind, AuditOutcome, Event, Gap
from shared.tenancy.audit_chain import NOTHING, CheckedPart, check_part
from shared.tenancy.principal import ANONYMOUS, Principal, Scope
from tests.frontend.access.making import SteppedClock

DATABASE = "/api/v2/tenants/{tenant}/databases/{database}"
COLLECTION = DATABASE + "/collections/{collection_id}"
QUERY = ("POST", COLLECTION + "/query")
DELETE = ("DELETE", DATABASE)
KEY_ID = "k" * 16
PATH = {"tenant": "t", "database": "d", "collection_id": "c"}


class Bucket(MemoryStore):
    """Objects in memory. `away`: it takes nothing. `answers_lost`: so many creations are done and not answered."""

    away = False
    answers_lost = 0

    async def create(self, key: str, data: bytes) -> bool:
        if self.away:
            raise Unavailable("away")
        created = await super().create(key, data)
        if self.answers_lost:
            self.answers_lost -= 1
            raise UnknownOutcome("no answer")
        return created


def principal(tenant: str | None = "t", **members: Any) -> Principal:
    return Principal(KEY_ID, Scope(tenant, **members), frozenset(), KEY_ID)


def request(route: tuple[str, str] = DELETE, **members: Any) -> Any:
    access = TABLE.row(*route)
    defaults = {"method": route[0], "pattern": route[1], "access": access, "path_params": dict(PATH), "hidden": None}
    others = {"principal": principal(), "remote": "10.0.0.1", "headers": CIMultiDict[str](), "subject": ""}
    others["subject_tenant"] = ""
    return SimpleNamespace(**{**defaults, **others, **members})


class Logged:
    """An audit log over a bucket, and what is in it."""

    def __init__(self, mode: str = "control", *, authenticates: bool = True) -> None:
        self.clock = SteppedClock()
        self.bucket = Bucket(self.clock.now)
        self.log = AuditLog(self.bucket, self.clock, "frontend-1", mode, authenticates=authenticates)

    async def parts(self) -> list[CheckedPart]:
        """All parts, which follow each other without a flaw."""
        found, prev, chain = [], NOTHING, ""
        async for info in self.bucket.list("audit/"):
            place = parse_audit_key(info.key)
            assert place is not None
            part = check_part(place, await self.bucket.get(info.key))
            prev = prev if place.chain == chain else NOTHING
            assert part.flaws == []
            assert part.prev == prev
            prev, chain = part.sha256, place.chain
            found.append(part)
        return found

    async def entries(self) -> list[Event | Gap]:
        """What is in the bucket, but for the event of the process's start."""
        entries = [entry for part in await self.parts() for entry in part.entries]
        return [each for each in entries if isinstance(each, Gap) or each.actor.kind is not ActorKind.PROCESS]

    async def events(self) -> list[Event]:
        return [entry for entry in await self.entries() if isinstance(entry, Event)]


@pytest.fixture
def logged() -> Logged:
    return Logged()


async def test_an_event_says_who_did_what_where_with_which_outcome(logged: Logged) -> None:
    logged.log.note(request(), 200)
    assert await logged.log.flush()
    (event,) = await logged.events()
    assert (event.actor.kind, event.actor.id, event.actor.tenant, event.address) == ("key", KEY_ID, "t", "10.0.0.1")
    assert (event.method, event.route, event.actions) == (*DELETE, ("db:delete_database",))
    assert (event.tenant, event.database, event.collection) == ("t", "d", "c")
    assert (event.outcome, event.status) == (AuditOutcome.ALLOWED, 200)


@pytest.mark.parametrize(
    ("asked", "status", "outcome"),
    [
        (request(QUERY, hidden=Hidden("tenant", "other", "nowhere-1")), 404, AuditOutcome.HIDDEN),
        (request(QUERY), 403, AuditOutcome.DENIED),
        (request(QUERY, principal=ANONYMOUS), 401, AuditOutcome.UNAUTHENTICATED),
        (request(QUERY, principal=ANONYMOUS), 503, AuditOutcome.UNAUTHENTICATED),
        (request(access=PUBLIC, pattern="unknown", path_params={}, principal=ANONYMOUS), 403, AuditOutcome.DENIED),
        (request(("GET", "/polychrome/v1/keys/{key_id}")), 404, AuditOutcome.HIDDEN),
        (request(("GET", "/api/v2/collections/{crn}")), 404, AuditOutcome.HIDDEN),
        (
            request(
                ("GET", DATABASE + "/collections/{name}"),
                principal=principal(databases=frozenset({"d"}), collections=frozenset({"x"})),
            ),
            404,
            AuditOutcome.HIDDEN,
        ),
    ],
)
async def test_every_kind_of_refusal_leaves_an_event(
    logged: Logged, asked: Any, status: int, outcome: AuditOutcome
) -> None:
    logged.log.note(asked, status)
    await logged.log.flush()
    (event,) = await logged.events()
    assert (event.outcome, event.status) == (outcome, status)
    if asked.hidden is not None:
        assert event.tenant == "other", "what the client has sent, and not its stand-in"


@pytest.mark.parametrize(
    ("mode", "asked", "wanted"),
    [
        ("control", request(QUERY), False),
        ("all", request(QUERY), True),
        ("control", request(), True),
        ("control", request(("POST", "/polychrome/v1/keys"), path_params={}), True),
        ("control", request(("POST", COLLECTION + "/fork")), True),
        ("all", request(("GET", "/api/v2/heartbeat"), principal=ANONYMOUS), False),
        ("all", request(access=PUBLIC, principal=ANONYMOUS), False),
    ],
)
async def test_which_requests_leave_an_event_when_they_are_allowed(mode: str, asked: Any, wanted: bool) -> None:
    logged = Logged(mode)
    logged.log.note(asked, 200)
    await logged.log.flush()
    assert len(await logged.events()) == wanted


async def test_senders_are_told_by_what_they_have_shown(logged: Logged) -> None:
    key = draw_key()
    tried = CIMultiDict({"Authorization": f"Bearer {key.text}"})
    logged.log.note(request(principal=ANONYMOUS, headers=tried), 401)
    logged.log.note(request(principal=Principal("mia", Scope("t"), frozenset())), 200)
    logged.log.note(request(principal=Principal("joe", Scope("t"), frozenset(), KEY_ID)), 200)
    await logged.log.flush()
    actors = [event.actor for event in await logged.events()]
    assert [(actor.kind, actor.id, actor.key) for actor in actors] == [
        ("unknown", key.id, ""), ("token", "mia", ""), ("user", "joe", KEY_ID),
    ]  # fmt: skip
    open_to_all = Logged(authenticates=False)
    open_to_all.log.note(request(principal=ANONYMOUS), 200)
    await open_to_all.log.flush()
    assert [event.actor.kind for event in await open_to_all.events()] == ["anonymous"]


async def test_parts_follow_each_other_and_the_last_one_says_so(logged: Logged) -> None:
    for _ in range(3):
        logged.log.note(request(), 200)
        await logged.log.flush()
    await logged.log.close()
    parts = await logged.parts()
    assert [part.closed for part in parts] == [False, False, False, True]
    assert len(await logged.events()) == 3


async def test_nothing_is_written_while_nothing_happens_but_once_a_day(logged: Logged) -> None:
    await logged.log.flush()
    await logged.log.flush()
    assert len(await logged.parts()) == 1
    logged.clock.now_s += HEARTBEAT_S
    await logged.log.flush()
    assert [len(part.entries) for part in await logged.parts()] == [1, 0]


async def test_parts_have_events_of_one_day(logged: Logged) -> None:
    logged.log.note(request(), 200)
    logged.clock.now_s += 24 * 3600
    logged.log.note(request(), 200)
    await logged.log.flush()
    for part in await logged.parts():
        assert part.begin is not None
        assert {entry.time[:10] for entry in part.entries} == {part.begin.day}


async def test_what_waits_for_the_bucket_is_written_when_it_is_back(logged: Logged) -> None:
    logged.bucket.away = True
    logged.log.note(request(), 200)
    assert not await logged.log.flush()
    logged.log.note(request(), 201)
    assert not await logged.log.flush()
    logged.bucket.away = False
    assert await logged.log.flush()
    assert [event.status for event in await logged.events()] == [200, 201]


async def test_a_part_whose_answer_was_lost_is_not_written_twice(logged: Logged) -> None:
    logged.bucket.answers_lost = 1
    logged.log.note(request(), 200)
    assert not await logged.log.flush()
    assert await logged.log.flush()
    assert len(await logged.events()) == 1


async def test_a_part_that_somebody_else_has_put_there_is_not_taken_for_ones_own(logged: Logged) -> None:
    await logged.log.flush()
    (key,) = [info.key async for info in logged.bucket.list("audit/")]
    await logged.bucket.put(key.replace("-0000000000.", "-0000000001."), b"forged")
    logged.log.note(request(), 200)
    await logged.log.flush()
    await logged.bucket.delete([key.replace("-0000000000.", "-0000000001.")])
    assert len(await logged.events()) == 1, "in a chain of its own"


async def test_what_there_is_no_room_for_is_counted_in_the_log_itself(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "WAITING_MAX", 5)
    logged.bucket.away = True
    for number in range(9):
        logged.log.note(request(), 200 + number)
    assert not await logged.log.flush()
    logged.log.note(request(), 300)
    logged.bucket.away = False
    await logged.log.flush()
    entries = await logged.entries()
    assert [entry.lost if isinstance(entry, Gap) else entry.status for entry in entries] == [200, 201, 202, 203, 5, 300]


async def test_refusals_without_end_leave_a_bounded_number_of_events(logged: Logged) -> None:
    for _ in range(REFUSALS_MAX + 50):
        logged.log.note(request(QUERY), 403)
    logged.log.note(request(QUERY, remote="10.0.0.2"), 403)
    await logged.log.flush()
    logged.clock.now_s += REFUSALS_S
    await logged.log.flush()
    events = await logged.events()
    assert len(events) == REFUSALS_MAX + 2
    assert sum(event.count for event in events) == REFUSALS_MAX + 51
    assert (events[-1].count, events[-1].route, events[-1].address) == (50, "*", "10.0.0.1")


async def test_senders_of_one_network_are_one_and_all_together_have_a_bound(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "ALL_REFUSALS_MAX", 150)
    for number in range(200):
        logged.log.note(request(QUERY, remote=f"2001:db8::{number:x}"), 403)
    for number in range(80):
        logged.log.note(request(QUERY, remote=f"10.0.0.{number}"), 403)
    await logged.log.flush(closing=True)
    events = await logged.events()
    assert sum(event.count for event in events) == 280
    assert [event.count for event in events[150:]] == [100] + [1] * 30, "of the network, and of each address"


async def test_many_addresses_are_not_remembered_without_end(logged: Logged) -> None:
    for number in range(log_module.SENDERS_MAX + REFUSALS_MAX + 30):
        logged.log.note(request(QUERY, remote=f"10.1.{number // 250}.{number % 250}"), 403)
    await logged.log.flush(closing=True)
    events = await logged.events()
    assert sum(event.count for event in events) == log_module.SENDERS_MAX + REFUSALS_MAX + 30
    assert events[-1].count == 30
    assert events[-1].actor.kind is ActorKind.UNKNOWN


async def test_a_loop_seals_when_its_time_has_come_or_a_part_is_full(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "SEAL_ENTRIES", 10)
    running = asyncio.create_task(logged.log.run())
    await asyncio.sleep(0)
    for _ in range(25):
        logged.log.note(request(), 200)
    await until(lambda: logged.log._number >= 3)
    running.cancel()
    logged.log._seal_s = 0.01
    running = asyncio.create_task(logged.log.run())
    logged.log.note(request(), 200)
    await until(lambda: not logged.log._waiting)
    running.cancel()
    await asyncio.wait([running])
    assert len(await logged.events()) == 26


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 (the log tells nobody)
            await asyncio.sleep(0.001)


async def test_closing_does_not_wait_for_a_bucket_that_is_away(
    logged: Logged, capsys: pytest.CaptureFixture[str]
) -> None:
    logged.bucket.away = True
    logged.log.note(request(), 200)
    await logged.log.close()
    assert "audit_not_closed" in capsys.readouterr().out


def test_without_a_setting_the_control_plane_is_written_down_where_there_are_keys() -> None:
    assert audit_mode("", authenticates=True) == "control"
    assert audit_mode("", authenticates=False) == "off"
    assert audit_mode("all", authenticates=False) == "all"
