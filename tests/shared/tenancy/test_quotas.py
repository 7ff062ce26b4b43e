"""Quotas: which layer wins, at which place, and what no quota can be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tenancy.quotas import (
    DESCRIPTIONS,
    PLACES_MAX,
    USED_UP,
    Quota,
    Resolved,
    TenantRecord,
    decode_plan,
    decode_tenant,
    shown_quotas,
)

AMOUNTS = st.none() | st.integers(0, 100)
QUOTAS = st.dictionaries(st.sampled_from(Quota), AMOUNTS, max_size=6)


def record(**members: Any) -> TenantRecord:
    return TenantRecord("acme", **members)


def test_a_tenants_overrides_win_over_its_plan_and_that_over_the_default() -> None:
    default: dict[Quota, float | None] = {Quota.SHARDS: 4, Quota.IDS: 100, Quota.FORKS: 5}
    resolved = Resolved(default, {Quota.IDS: 200, Quota.FORKS: None}, record(quotas={Quota.FORKS: 7}))
    assert resolved.effective() == {Quota.SHARDS: 4, Quota.IDS: 200, Quota.FORKS: 7}


def test_the_nearest_place_that_has_a_quota_of_one_request_decides() -> None:
    resolved = Resolved(
        {},
        {Quota.IDS: 100},
        record(databases={"main": {Quota.IDS: 200}}, collections={"c": {Quota.IDS: 300}, "d": {Quota.IDS: None}}),
    )
    assert resolved.effective("other")[Quota.IDS] == 100
    assert resolved.effective("main")[Quota.IDS] == 200
    assert resolved.effective("main", "c")[Quota.IDS] == 300
    assert resolved.effective("main", "d")[Quota.IDS] is None


def test_what_is_used_up_is_bounded_by_every_place_around_it() -> None:
    resolved = Resolved({}, {Quota.RECORDS: 100}, record(databases={"main": {Quota.RECORDS: 500}}))
    assert resolved.effective("main")[Quota.RECORDS] == 100
    lifted = Resolved({}, {}, record(quotas={Quota.RECORDS: None}, databases={"main": {Quota.RECORDS: 5}}))
    assert lifted.effective("main", "c")[Quota.RECORDS] == 5
    assert lifted.effective("other")[Quota.RECORDS] is None


@given(QUOTAS, QUOTAS, QUOTAS, QUOTAS, QUOTAS)
def test_no_place_within_has_more_of_what_is_used_up_than_the_tenant(
    default: Any, plan: Any, own: Any, database: Any, collection: Any
) -> None:
    resolved = Resolved(default, plan, record(quotas=own, databases={"d": database}, collections={"c": collection}))
    for quota in USED_UP:
        tenants, here = resolved.effective().get(quota), resolved.effective("d", "c").get(quota)
        assert tenants is None or (here is not None and here <= tenants)


def test_overrides_replace_those_of_their_place_alone_and_none_are_no_entry() -> None:
    first = record(quotas={Quota.IDS: 1}).overridden({Quota.SHARDS: 2}, "main", None)
    second = first.overridden({Quota.SHARDS: 3}, None, "c").overridden({Quota.FORKS: 4}, None, None)
    assert (second.quotas, second.databases, second.collections) == (
        {Quota.FORKS: 4},
        {"main": {Quota.SHARDS: 2}},
        {"c": {Quota.SHARDS: 3}},
    )
    third = second.overridden({}, "main", None).overridden({}, None, "c").overridden({}, None, None)
    assert third.empty


def test_the_places_with_overrides_are_bounded() -> None:
    full = record(databases={str(number): {Quota.IDS: 1} for number in range(PLACES_MAX)})
    assert full.overridden({Quota.IDS: 2}, "7", None).databases["7"] == {Quota.IDS: 2}
    with pytest.raises(ValueError, match="At most 500 databases"):
        full.overridden({Quota.IDS: 2}, "one more", None)


@pytest.mark.parametrize(
    "quotas",
    [{"records": -1}, {"records": 1.5}, {"recrods": 1}, {"records": "1"}, {"records": 2**54}, {"shards": True}],
)
def test_numbers_and_names_that_no_quota_has_are_refused(quotas: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_plan(json.dumps({"name": "p", "quotas": quotas}).encode())
    for places in ("databases", "collections"):
        with pytest.raises(ValueError, match=r"."):
            decode_tenant(json.dumps({"tenant": "acme", places: {"x": quotas}}).encode())


def test_rates_need_not_be_whole_and_whole_numbers_are_shown_as_such() -> None:
    plan = decode_plan(b'{"name": "p", "quotas": {"reads_per_s": 0.5, "shards": 4, "ids": null, "bytes": 2e9}}')
    assert (
        json.dumps(shown_quotas(plan.quotas)) == '{"bytes": 2000000000, "shards": 4, "ids": null, "reads_per_s": 0.5}'
    )


def test_every_quota_has_a_description() -> None:
    assert set(DESCRIPTIONS) == set(Quota)
