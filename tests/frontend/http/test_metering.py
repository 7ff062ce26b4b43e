"""What a request is counted as, and for whom."""

from types import SimpleNamespace
from typing import Any

import pytest

from frontend.access.access_table import PUBLIC, About, Access, Metered
from frontend.access.authorization import Hidden
from frontend.http.metering import RequestMetering
from shared.process import metering
from shared.tenancy.actions import SYSTEM_ACTIONS
from shared.tenancy.principal import ANONYMOUS, Principal, Scope
from shared.tenancy.usage import HOUR_S, Subject, UsageTotals
from tests.logservice.conftest import SteppedClock

READ, WRITE = Access(About.COLLECTION, metered=Metered.READ), Access(About.COLLECTION, metered=Metered.WRITE)
KEYS = Access(About.OWN, metered=Metered.CONTROL)


def request(access: Access = READ, tenant: str | None = "a", **more: Any) -> Any:
    params = {} if tenant is None else {"tenant": tenant}
    return SimpleNamespace(
        **{"access": access, "path_params": params, "principal": ANONYMOUS, "hidden": None, "method": "POST"} | more
    )


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def totals() -> UsageTotals:
    return UsageTotals()


@pytest.fixture
def counting(totals: UsageTotals, clock: SteppedClock) -> RequestMetering:
    return RequestMetering(totals, clock)


def test_a_read_is_counted_with_what_it_asked_for_scanned_and_returned(
    counting: RequestMetering, totals: UsageTotals
) -> None:
    meter = counting.begin()
    metering.count_queries(3)
    metering.count_tokens(7)
    meter.scanned(10, 400)
    meter.scanned(5, 200)
    counting.end(request(), meter, 200, 1234)
    assert totals.take(0, 9) == {
        Subject("a"): {
            "requests_read": 1, "queries": 3, "rows_scanned": 15, "bytes_scanned": 600, "bytes_returned": 1234,
            "embedding_tokens": 7,
        }
    }  # fmt: skip


def test_requests_are_counted_by_kind_in_the_hour_in_which_they_end(
    counting: RequestMetering, totals: UsageTotals, clock: SteppedClock
) -> None:
    clock.time_s = HOUR_S - 0.001
    first, second = counting.begin(), counting.begin()
    counting.end(request(WRITE), first, 201, 2)
    clock.time_s = HOUR_S
    counting.end(request(WRITE), second, 200, 2)
    assert totals.take(0, 9) == {Subject("a"): {"requests_write": 1}}
    assert totals.take(1, 9) == {Subject("a"): {"requests_write": 1}}


@pytest.mark.parametrize("status", [400, 404, 422, 429, 499, 500, 503])
def test_a_request_that_was_not_served_costs_what_was_done_for_it(
    counting: RequestMetering, totals: UsageTotals, status: int
) -> None:
    counting.end(request(), counting.begin(), status, 50)
    assert totals.hours_changed == []
    meter = counting.begin()
    meter.scanned(4, 16)
    counting.end(request(), meter, status, 50)
    assert totals.take(0, 9) == {Subject("a"): {"rows_scanned": 4, "bytes_scanned": 16}}


def test_nobody_is_counted_for_what_is_public_hidden_or_no_tenants(
    counting: RequestMetering, totals: UsageTotals
) -> None:
    hidden = Hidden("tenant", "a", "nowhere")
    for each in (request(PUBLIC), request(hidden=hidden, tenant="nowhere"), request(KEYS, tenant=None)):
        counting.end(each, counting.begin(), 200, 1)
    assert totals.hours_changed == []
    bound = Principal("key", Scope("mine"), SYSTEM_ACTIONS)
    counting.end(request(KEYS, tenant=None, principal=bound), counting.begin(), 200, 1)
    assert totals.take(0, 9) == {Subject("mine"): {"requests_control": 1}}
