"""Accounts of places: what is refused takes nothing, and no place pays for another one."""

from __future__ import annotations

import pytest

from frontend.admission import accounts as module
from frontend.admission.accounts import Accounts
from shared.errors import RateLimited
from shared.tenancy.quotas import Quota

READ = {Quota.READS_PER_S: 1.0}
ACME = ("acme",)


def admitted(accounts: Accounts, rates: dict[Quota, float], now_s: float = 0, place: tuple[str, ...] = ACME) -> int:
    """Number of reads that are taken at one moment."""
    for number in range(10_000):
        try:
            accounts.admit([(place, rates)], READ, now_s)
        except RateLimited:
            return number
    raise AssertionError("nothing bounds it")


def test_each_place_has_buckets_of_its_own() -> None:
    accounts, rates = Accounts(), {Quota.READS_PER_S: 10.0}
    first = admitted(accounts, rates)
    assert first == 22  # two seconds' worth at once, and what comes within the time that a request may wait
    assert admitted(accounts, rates, place=("other",)) == first
    assert admitted(accounts, rates, place=("acme", "main")) == first
    assert admitted(accounts, rates) == 0


def test_a_frontend_has_its_share_of_a_rate_and_of_a_concurrency() -> None:
    accounts = Accounts()
    accounts.share = 0.5
    assert admitted(accounts, {Quota.READS_PER_S: 20.0}) == 22
    assert admitted(accounts, {Quota.CONCURRENCY: 5.0}, place=("b",)) == 3
    accounts.share = 0.1
    assert admitted(accounts, {Quota.CONCURRENCY: 5.0}, place=("c",)) == 1
    assert admitted(accounts, {Quota.CONCURRENCY: 0.0}, place=("d",)) == 0


def test_what_an_inner_place_refuses_costs_the_tenant_nothing() -> None:
    accounts = Accounts()
    tenant, database = (ACME, {Quota.READS_PER_S: 10.0}), (("acme", "main"), {Quota.READS_PER_S: 1.0})
    taken = 0
    for _ in range(100):
        try:
            accounts.admit([tenant, database], READ, 0)
            taken += 1
        except RateLimited:
            pass
    assert taken == 2
    assert admitted(accounts, {Quota.READS_PER_S: 10.0}) == 20


def test_requests_that_are_done_make_room() -> None:
    accounts, rates = Accounts(), {Quota.CONCURRENCY: 2.0}
    _, counted = accounts.admit([(ACME, rates)], READ, 0)
    accounts.admit([(ACME, rates)], READ, 0)
    with pytest.raises(RateLimited) as refused:
        accounts.admit([(ACME, rates)], READ, 0)
    assert refused.value.retry_after_s == 1
    accounts.done(counted)
    accounts.admit([(ACME, rates)], READ, 0)


def test_a_refusal_says_when_to_come_again() -> None:
    accounts, rates = Accounts(), {Quota.BYTES_IN_PER_S: 100.0}
    accounts.charge([(ACME, rates)], {Quota.BYTES_IN_PER_S: 1200.0}, 0)
    for now_s, retry_after_s in ((0, 10), (7.5, 3)):
        with pytest.raises(RateLimited, match="Too many requests; backoff and try again") as refused:
            accounts.admit([(ACME, rates)], {Quota.BYTES_IN_PER_S: 0.0}, now_s)
        assert refused.value.retry_after_s == retry_after_s
    wait_s, _ = accounts.admit([(ACME, rates)], {Quota.BYTES_IN_PER_S: 0.0}, 9.9)
    assert wait_s == pytest.approx(0.1)


def test_the_places_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCOUNTS_MAX", 10)
    accounts = Accounts()
    for number in range(100):
        accounts.admit([((str(number),), {Quota.CONCURRENCY: 1.0})], READ, 0)
        with pytest.raises(RateLimited):
            accounts.admit([((str(number),), {Quota.CONCURRENCY: 1.0})], READ, 0)
    assert len(accounts) == 10
