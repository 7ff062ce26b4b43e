"""Exponential function and logarithm, with the same bits on every processor.

numpy and the C library have several implementations of each, choose by the processor, and these differ in the last bit.
Additions, multiplications and divisions have one result each, which IEEE 754 prescribes. So here both are made of those
alone, in float64:

```text
exp(x)      = 2**k * exp(r)              k the whole number nearest to x / log(2), so |r| <= log(2) / 2
log(a / b)  = k * log(2) + 2 * atanh(s)  s = (a - c) / (a + c) for c = b * 2**k, k such that a / c is about 1
```

with the Taylor polynomials of exp and atanh. The results are right to 1e-15 of their size, whatever that is: rounded to
float32 they are the floats nearest to the true values, but for one in a hundred million or so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from shared.vectors.arrays import Float64Array

EXPONENT_MAX: Final = 700.0
"""Greater arguments of `exp` count as this one: the result is finite in float64, and infinite in float32."""

_LOG_2: Final = 0.6931471805599453
_LOG_2_HIGH: Final = 6.93147180369123816490e-01
"""The upper 32 bits of log(2): any k times it is exact."""
_LOG_2_LOW: Final = 1.90821492927058770002e-10
_EXP_TERMS: Final = [1.0 / math.factorial(power) for power in range(14)]
_ATANH_TERMS: Final = [1.0 / (2 * power + 1) for power in range(12)]
"""Coefficients of atanh(s) / s, in powers of the square of s."""


def exp(x: Float64Array) -> Float64Array:
    """Float64 [n]; NaN of NaN."""
    x = np.clip(x, -EXPONENT_MAX, EXPONENT_MAX)
    k = np.rint(x * (1.0 / _LOG_2))
    rest = (x - k * _LOG_2_HIGH) - k * _LOG_2_LOW
    whole = np.where(np.isnan(k), 0.0, k).astype(np.int32)
    scaled: Float64Array = np.ldexp(_polynomial(_EXP_TERMS, rest), whole)
    return scaled


def log(x: Float64Array) -> Float64Array:
    """Float64 [n]: of 0 minus infinity, of infinity itself, NaN of what is less than 0 or NaN."""
    inside = (x > 0) & (x < np.inf)
    outside = np.where(x == 0, -np.inf, np.where(x > 0, np.inf, np.nan))
    return np.where(inside, log_ratio(np.where(inside, x, 1.0), 1.0), outside)


def log_ratio(a: Float64Array | float, b: Float64Array | float) -> Float64Array:
    """log(a / b), float64 [n], of finite numbers greater than 0: as exact where they are nearly equal as elsewhere."""
    mantissa, k = np.frexp(a / b)
    k = k - (mantissa < math.sqrt(0.5))
    c = np.ldexp(b, k)
    s = (a - c) / (a + c)
    rest = 2.0 * s * _polynomial(_ATANH_TERMS, s * s)
    ratio: Float64Array = k * _LOG_2_HIGH + (k * _LOG_2_LOW + rest)
    return ratio


def _polynomial(terms: Sequence[float], x: Float64Array) -> Float64Array:
    """The value of the polynomial with these coefficients, of ascending powers, by Horner's rule."""
    found = np.full_like(x, terms[-1])
    for term in reversed(terms[:-1]):
        found = found * x + term
    return found
