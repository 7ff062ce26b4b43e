"""Quotas of what is stored: whoever is full can write no more, and can delete."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from frontend.admission.stored_quotas import StoredQuotas
from frontend.admission.tenant_quotas import TenantQuotas
from frontend.request_limits import DEFAULT_LIMITS
from shared.errors import Corrupt, QuotaExceeded, Unavailable
from shared.tenancy.quotas import Quota, Quotas, Resolved, TenantRecord
from shared.tenancy.stored import StoredAmounts, StoredSums
from tests.frontend.admission.test_admission import PATH, TENANT, StoppedClock, served
from tests.frontend.fakes import COLLECTION_ID, FakeAmounts, new_collection

RECORD: dict[str, Any] = {"ids": ["a"], "embeddings": [[1.0, 0.0]]}
FULL = StoredAmounts(StoredSums(100, 5000), {"default_database": StoredSums(60, 3000)}, at_s=0)
UPSERT = {"operation": "upsert", "payload": RECORD}
DELETE = {"operation": "delete", "payload": {"ids": ["a"]}}

WRITES: dict[str, Any] = {
    "add": RECORD,
    "upsert": RECORD,
    "update": RECORD,
    "conditional/commit": {"operations": [UPSERT]},
}


def is_full(answer: httpx.Response, what: str, usage: int, most: int) -> bool:
    if answer.status_code != 422:
        return False
    assert answer.json()["error"] == "ChromaError"
    assert answer.json()["message"].startswith(f"Quota exceeded: '{what}' exceeded quota limit for action '")
    assert answer.json()["message"].endswith(f": current usage of {usage} exceeds limit of {most}")
    return True


async def answers(quotas: Quotas, *, tenants: Any = FULL, collections: Any = None, own: Any = None) -> dict[str, Any]:
    """What each write is answered, and then what deletes are, of a tenant with these quotas and amounts."""
    async with served(quotas, own) as (client, context, clock):
        context.stored._tenants, context.stored._collections = FakeAmounts(tenants), FakeAmounts(collections)
        found = {route: await client.post(f"{PATH}/{route}", json=body) for route, body in WRITES.items()}
        assert (await client.post(PATH + "/delete", json={"ids": ["a"]})).status_code == 200
        assert (await client.post(PATH + "/conditional/commit", json={"operations": [DELETE]})).status_code == 200
        assert clock.now_s == 0
        return found


async def test_a_tenant_with_all_its_records_adds_none_and_changes_what_it_has() -> None:
    found = await answers({Quota.RECORDS: 100})
    for route in ("add", "upsert", "conditional/commit"):
        assert is_full(found[route], "Number of records", 101, 100), found[route].text
    assert found["update"].status_code == 200


async def test_a_tenant_with_all_its_bytes_writes_nothing() -> None:
    found = await answers({Quota.BYTES: 5000})
    assert all(is_full(answer, "Stored bytes", 5001, 5000) for answer in found.values())


@pytest.mark.parametrize("quotas", [{Quota.RECORDS: 101, Quota.BYTES: 5001}, {Quota.RECORDS: None}, {Quota.IDS: 5}])
async def test_whoever_has_room_writes(quotas: Quotas) -> None:
    assert {answer.status_code // 100 for answer in (await answers(quotas)).values()} == {2}


async def test_a_collection_is_bounded_by_its_own_amounts() -> None:
    found = await answers({}, own={Quota.RECORDS: 10}, collections=StoredSums(10, 0))
    assert is_full(found["add"], "Number of records", 11, 10)
    assert found["update"].status_code == 200


@pytest.mark.parametrize("amounts", [None, Corrupt("damaged")])
async def test_amounts_that_nobody_knows_bound_nothing(amounts: Any) -> None:
    found = await answers({Quota.RECORDS: 1}, tenants=amounts)
    assert {answer.status_code // 100 for answer in found.values()} == {2}


@pytest.mark.parametrize("amounts", [None, Corrupt("damaged")])
async def test_amounts_that_nobody_knows_are_none_at_least(amounts: Any) -> None:
    stored = StoredQuotas(FakeAmounts(amounts), FakeAmounts(), StoppedClock())
    assert not await is_refused(stored, Growing({Quota.RECORDS: 10}), 10)
    assert await is_refused(stored, Growing({Quota.RECORDS: 10}), 11)
    assert await is_refused(stored, Growing({Quota.RECORDS: 0}), 1)
    assert not await is_refused(stored, Growing({Quota.RECORDS: 0}), 0)


class Growing:
    """A request of a place with these quotas of its tenant and of its database."""

    def __init__(self, tenant: Quotas, database: Quotas | None = None) -> None:
        record = TenantRecord(TENANT, databases={"default_database": database} if database else {})
        self.quotas = TenantQuotas(Resolved({}, tenant, record), DEFAULT_LIMITS).at("default_database", COLLECTION_ID)

    def check_quota(self, quota: Quota, usage: float, most: float | None = None) -> None:
        self.quotas.check(quota, usage, (), most)


async def is_refused(stored: StoredQuotas, request: Growing, records: int) -> bool:
    try:
        await stored.check(request, new_collection(), records)
    except QuotaExceeded:
        return True
    return False


async def test_a_database_is_bounded_by_what_is_in_it_and_its_tenant_by_all() -> None:
    stored = StoredQuotas(FakeAmounts(FULL), FakeAmounts(), StoppedClock())
    assert not await is_refused(stored, Growing({Quota.RECORDS: 200}, {Quota.RECORDS: 100}), 40)
    assert await is_refused(stored, Growing({Quota.RECORDS: 200}, {Quota.RECORDS: 100}), 41)
    assert await is_refused(stored, Growing({Quota.RECORDS: 120}, {Quota.RECORDS: 100}), 21)


async def test_amounts_are_read_once_a_second_and_once_for_all_who_wait() -> None:
    amounts, clock = FakeAmounts(FULL), StoppedClock()
    stored = StoredQuotas(amounts, FakeAmounts(), clock)
    request, reads = Growing({Quota.RECORDS: 200}), []
    for pause_s in (0, 0.9, 0.2):
        clock.now_s += pause_s
        await asyncio.gather(*(stored.check(request, new_collection(), 1) for _ in range(10)))
        reads.append(amounts.reads)
    assert reads == [1, 1, 2]


async def test_without_quotas_nothing_is_read_and_while_redis_is_away_nothing_is_made_up() -> None:
    amounts = FakeAmounts(Unavailable("Redis is away"))
    stored = StoredQuotas(amounts, amounts, StoppedClock())
    reads = []
    for quota in (Quota.IDS, Quota.REGEXES):
        await stored.check(Growing({quota: 1}), new_collection(), 1)
        reads.append(amounts.reads)
    assert reads == [0, 0]
    for _ in range(2):
        with pytest.raises(Unavailable):
            await stored.check(Growing({Quota.RECORDS: 1}), new_collection(), 1)
    assert amounts.reads == 2
