"""A token bucket keeps to its rate, whatever is asked of it and when."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.admission.token_bucket import BURST_S, TokenBucket


def test_a_full_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(10, now_s=0)
    taken = 0
    for step in range(1000):
        now_s = step / 100
        while not bucket.wait_s(1, now_s):
            bucket.take(1, now_s)
            taken += 1
    assert taken == pytest.approx(10 * BURST_S + 10 * 10, abs=1)


@given(
    st.floats(0.1, 1e6),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1e7)), max_size=50),
)
def test_no_more_is_taken_than_the_rate_gives_and_the_last_take(rate: float, asked: list[tuple[float, float]]) -> None:
    bucket, now_s, taken, last = TokenBucket(rate, 0), 0.0, 0.0, 0.0
    for pause_s, tokens in asked:
        now_s += pause_s
        if not bucket.wait_s(0, now_s):
            bucket.take(tokens, now_s)
            taken, last = taken + tokens, tokens
    allowed = max(1.0, rate * BURST_S) + rate * now_s + last
    assert taken <= allowed or taken == pytest.approx(allowed)


def test_what_is_overdrawn_is_waited_for() -> None:
    bucket = TokenBucket(10, 0)
    bucket.take(120, 0)
    assert bucket.wait_s(0, 0) == pytest.approx(10)
    assert bucket.wait_s(1, 5) == pytest.approx(5.1)


def test_more_than_it_can_hold_is_given_when_it_is_full() -> None:
    assert TokenBucket(10, 0).wait_s(1000, 0) == 0


def test_a_slow_bucket_holds_one_token_and_one_without_a_rate_gives_none() -> None:
    slow = TokenBucket(0.1, 0)
    assert slow.wait_s(1, 0) == 0
    slow.take(1, 0)
    assert slow.wait_s(1, 0) == pytest.approx(10)
    assert math.isinf(TokenBucket(0, 0).wait_s(1, 0))
    assert math.isinf(TokenBucket(0, 0).wait_s(0, 0))


def test_another_rate_holds_at_once_and_makes_no_gift() -> None:
    bucket = TokenBucket(1000, 0)
    bucket.set_rate(1, 0)
    bucket.take(2, 0)
    assert bucket.wait_s(1, 0) == pytest.approx(1)
    bucket.set_rate(100, 0)
    assert bucket.wait_s(1, 0) == pytest.approx(0.01)
