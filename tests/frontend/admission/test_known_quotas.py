"""The quotas of tenants are looked up once, until a record changes."""

from __future__ import annotations

import pytest

from frontend.admission import known_quotas as module
from frontend.admission import tenant_quotas
from frontend.admission.known_quotas import KnownQuotas
from frontend.admission.tenant_quotas import TenantQuotas
from frontend.request_limits import DEFAULT_LIMITS
from shared.errors import Unavailable
from shared.tenancy.quotas import Quota, Quotas, Resolved, TenantRecord
from tests.frontend.fakes import FakePlans

ACME = TenantRecord("acme", databases={"main": {Quota.IDS: 5, Quota.READS_PER_S: 1}})


def plans() -> FakePlans:
    return FakePlans({"acme": Resolved({}, {Quota.IDS: 100, Quota.DIMENSIONS: 10**9}, ACME)})


async def test_without_records_there_is_nothing_to_ask_until_there_is_one() -> None:
    records = FakePlans()
    known = KnownQuotas(records, DEFAULT_LIMITS)
    found = [(await known.look(), known.any)]
    records.tenants, records.word = plans().tenants, "another"
    found += [(await known.look(), known.any) for _ in range(2)]
    assert found == [(True, False), (True, True), (False, True)]


async def test_a_tenant_is_looked_up_again_when_a_record_has_changed() -> None:
    records = plans()
    known = KnownQuotas(records, DEFAULT_LIMITS)
    await known.look()
    for _ in range(3):
        assert (await known.of("acme")).at(None, None).most(Quota.IDS) == 100
    assert records.asked == ["acme"]
    records.tenants["acme"], records.word = Resolved({}, {Quota.IDS: 7}, TenantRecord("acme")), "another"
    assert (await known.of("acme")).at(None, None).most(Quota.IDS) == 100
    await known.look()
    assert (await known.of("acme")).at(None, None).most(Quota.IDS) == 7


async def test_what_was_known_holds_while_redis_is_away_and_nothing_is_made_up() -> None:
    records = plans()
    known = KnownQuotas(records, DEFAULT_LIMITS)
    await known.look()
    before = await known.of("acme")
    records.word = "another"
    await known.look()
    records.away = True
    assert await known.of("acme") is before
    with pytest.raises(Unavailable):
        await known.of("other")


async def test_the_tenants_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TENANTS_MAX", 10)
    known = KnownQuotas(plans(), DEFAULT_LIMITS)
    for number in range(50):
        await known.of(str(number))
    assert sum(known.last_known(str(number)) is not None for number in range(50)) == 10


async def test_a_place_has_the_nearest_values_and_accounts_of_all_around_it() -> None:
    acme = await KnownQuotas(plans(), DEFAULT_LIMITS).of("acme")
    tenant, main = acme.at("other", "c"), acme.at("main", "c")
    assert tenant is acme.at(None, None)
    assert (tenant.accounts, main.accounts) == ((), ((("acme", "main"), {Quota.READS_PER_S: 1}),))
    assert tenant.limits is not None
    assert main.limits is not None
    assert (tenant.limits.ids_max, main.limits.ids_max) == (100, 5)
    assert main.limits.dimensions_max == DEFAULT_LIMITS.dimensions_max, "no quota is above the process's own limit"
    assert main.lowered == {"records", "ids"}


def test_the_places_that_are_remembered_of_a_tenant_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_quotas, "PLACES_MAX", 10)
    places: dict[str, Quotas] = {str(number): {Quota.IDS: number} for number in range(20)}
    quotas = TenantQuotas(Resolved({}, {}, TenantRecord("acme", databases=places, collections=places)), DEFAULT_LIMITS)
    for database in places:
        for collection in places:
            assert quotas.at(database, collection).most(Quota.IDS) == int(collection)
    assert len(quotas._places) <= 10
