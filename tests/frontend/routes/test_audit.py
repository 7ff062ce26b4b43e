"""The route of the audit log: its pages, its filters, and who sees what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from frontend.routes import audit as audit_routes
from shared.objects.keys import AuditPart
from shared.tenancy.actions import ADMIN_ACTIONS
from shared.tenancy.audit import Actor, ActorKind, AuditOutcome, Event, chain_name, day_of, moment_of
from shared.tenancy.audit_chain import NOTHING, seal
from shared.tenancy.principal import ANONYMOUS, Principal, Scope
from tests.frontend.server import Running, running

AUDIT = "/polychrome/v1/audit"


class Keys:
    """Everybody is `principal`."""

    def __init__(self) -> None:
        self.principal: Principal = ANONYMOUS

    def known(self, _headers: Any) -> Principal:
        return self.principal


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
async def server(keys: Keys) -> AsyncIterator[Running]:
    async with running(keys) as server:  # type: ignore[arg-type]  # the part of it that is asked
        yield server


async def write(server: Running, process: str, number: int, subjects: range, age_s: float = 60, **members: Any) -> None:
    """A part with an event for each subject."""
    now_s = server.context.clock.now() - age_s
    common: dict[str, Any] = {"actor": Actor(ActorKind.KEY, "k"), "route": "/x", "outcome": AuditOutcome.ALLOWED}
    events = [Event(time=moment_of(now_s), subject=str(subject), **(common | members)) for subject in subjects]
    chain = chain_name(process, 1764504000.0, "0123abcd")
    sealed = seal(AuditPart(day_of(moment_of(now_s)), chain, number), NOTHING, events)
    await server.context.objects.put(sealed.place.key, sealed.data)


async def page(server: Running, **params: Any) -> Any:
    answer = await server.client.get(AUDIT, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def subjects(found: Any) -> list[int]:
    return [int(event["subject"]) for event in found["events"]]


async def test_pages_follow_each_other_without_a_gap(server: Running) -> None:
    await write(server, "a", 0, range(5))
    await write(server, "a", 1, range(5, 8))
    await write(server, "b", 0, range(8, 20))
    found: list[int] = []
    cursor: dict[str, str] = {}
    sizes = []
    while True:
        answer = await page(server, limit=4, **cursor)
        found += subjects(answer)
        sizes.append(len(answer["events"]))
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
    assert found == list(range(20))
    assert max(sizes) == 4


async def test_a_page_reads_a_bounded_number_of_bytes(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_routes, "READ_BYTES_MAX", 1000)
    for number in range(4):
        await write(server, "a", number, range(number * 10, number * 10 + 10))
    first = await page(server, action="nothing:of_that_kind")
    assert first["events"] == []
    assert first["next"] is not None
    assert (await page(server, action="nothing:of_that_kind", cursor=first["next"]))["next"] != first["next"]


async def test_events_are_found_by_time_actor_action_and_outcome(server: Running) -> None:
    await write(server, "a", 0, range(1), age_s=3 * 24 * 3600)
    await write(
        server, "b", 0, range(1, 2), actor=Actor(ActorKind.USER, "mia", "key1"), actions=("db:delete_database",)
    )
    await write(server, "c", 0, range(2, 3), outcome=AuditOutcome.DENIED)
    assert subjects(await page(server)) == [1, 2], "of the last day"
    assert subjects(await page(server, **{"from": "2020-01-01T00:00:00Z"})) == [0, 1, 2]
    assert subjects(await page(server, **{"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T00:00:00Z"})) == [0, 1, 2]
    end = "9999-12-31T00:00:00Z"
    assert (
        subjects(await page(server, **{"from": end})) == subjects(await page(server, **{"from": end, "to": end})) == []
    )
    earlier = moment_of(server.context.clock.now() - 24 * 3600)
    assert subjects(await page(server, **{"from": "2020-01-01T00:00:00Z", "to": earlier})) == [0]
    for actor in ("mia", "key1", "user"):
        assert subjects(await page(server, actor=actor)) == [1]
    for action in ("db:delete_database", "delete_database", "db"):
        assert subjects(await page(server, action=action)) == [1]
    assert subjects(await page(server, outcome="denied")) == [2]


async def test_a_tenants_administrator_sees_what_concerns_the_tenant(server: Running, keys: Keys) -> None:
    await write(server, "a", 0, range(1), tenant="mine", actor=Actor(ActorKind.KEY, "k", tenant="mine"))
    await write(server, "a", 1, range(1, 2), tenant="other", actor=Actor(ActorKind.KEY, "k", tenant="mine"))
    await write(server, "a", 2, range(2, 3), tenant="mine", actor=Actor(ActorKind.KEY, "k", tenant="other"))
    await write(server, "a", 3, range(3, 4), tenant="mine", actor=Actor(ActorKind.BOOTSTRAP))
    await write(server, "a", 4, range(4, 5), actor=Actor(ActorKind.PROCESS))
    assert subjects(await page(server)) == [0, 1, 2, 3, 4]
    assert subjects(await page(server, tenant="mine")) == [0, 1, 2, 3]
    keys.principal = Principal("k", Scope("mine"), ADMIN_ACTIONS, "k")
    assert subjects(await page(server)) == [0, 1, 3]
    assert subjects(await page(server, tenant="other")) == [1]


async def test_a_part_of_a_tenant_is_not_enough(server: Running, keys: Keys) -> None:
    keys.principal = Principal("k", Scope("mine", frozenset({"db"})), ADMIN_ACTIONS, "k")
    assert (await server.client.get(AUDIT)).status_code == 403


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "from=yesterday", "to=2026-01-01T00:00:00", "outcome=maybe", "actr=mia",
     "tenant=a&tenant=b", "cursor=x", "cursor=audit/2026/../../x:-1", "cursor=catalog/1:0",
     "from=0001-01-01T00:00:00%2B14:00"],
)  # fmt: skip
async def test_what_is_not_understood_is_refused(server: Running, query: str) -> None:
    answer: httpx.Response = await server.client.get(f"{AUDIT}?{query}")
    assert answer.status_code == 400, answer.text
