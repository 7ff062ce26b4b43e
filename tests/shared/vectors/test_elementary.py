"""Exponential function and logarithm against those of the C library, which are right to about the last bit."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.vectors.arrays import Float64Array
from shared.vectors.elementary import EXPONENT_MAX, exp, log, log_ratio

CLOSE = 1e-15
positive = st.floats(1e-300, 1e300)
counts = st.integers(1, 2**40).map(float)


def _relative(found: Float64Array, expected: float) -> float:
    value = float(found[0])
    return abs(value - expected) / abs(expected) if expected else abs(value)


@given(st.floats(-EXPONENT_MAX, EXPONENT_MAX) | st.floats(-1e-3, 1e-3))
def test_exp_is_right_to_the_last_bits(x: float) -> None:
    assert _relative(exp(np.array([x])), math.exp(x)) < CLOSE


@given(positive | st.floats(1 - 1e-6, 1 + 1e-6))
def test_log_is_right_to_the_last_bits_also_where_it_is_almost_nothing(x: float) -> None:
    assert _relative(log(np.array([x])), math.log(x)) < CLOSE


@given(counts, counts)
def test_the_log_of_a_ratio_is_right_where_both_are_almost_equal(a: float, more: float) -> None:
    assert _relative(log_ratio(np.array([a + more]), a), math.log1p(more / a)) < CLOSE
    assert log_ratio(np.array([a, a]), a).tolist() == [0.0, 0.0]


def test_what_has_no_value_is_infinite_or_nan_and_nothing_fails() -> None:
    inputs = np.array([0.0, -0.0, -1.0, -math.inf, math.inf, math.nan, 1e-310, 1.0])
    with np.errstate(all="raise", under="ignore"):
        found, powers = log(inputs), exp(inputs)
    logs = [-math.inf, -math.inf, math.nan, math.nan, math.inf, math.nan, math.log(1e-310), 0.0]
    assert np.allclose(found, logs, rtol=CLOSE, atol=0, equal_nan=True)
    least, most = math.exp(-EXPONENT_MAX), math.exp(EXPONENT_MAX)
    expected = [1, 1, math.exp(-1), least, most, math.nan, 1, math.e]
    assert np.allclose(powers, expected, rtol=CLOSE, atol=0, equal_nan=True)


def test_a_value_does_not_depend_on_its_place() -> None:
    x = np.random.default_rng(1).uniform(1e-3, 80.0, 1000)
    for function in (exp, log):
        alone = [function(x[place : place + 1])[0] for place in range(len(x))]
        assert function(x).tolist() == alone == [float(function(one)) for one in x] == function(x[::-1])[::-1].tolist()
