"""Rank expressions evaluated over the candidates of a search (docs/wire.md, section 15). Pure.

The candidates are all records that some `$knn` of the expression found. Every expression has a *support*, the
candidates that it gives a value to, and perhaps a *default* for all other records:

    $knn        what it found; the default that it was given
    $val        nothing; the number
    one operand     as its operand
    two operands    both have defaults: either's support; one has: the support of the other; none: what both support

An operator of many operands begins with its neutral element, which is a constant, and takes them one after the other.
Everything is float32, and no arithmetic fails: what has no value is NaN or infinite, and NaN comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import numpy as np

from shared.search.expression import Combination, Constant, Expression, KnnValue, Operator
from shared.vectors.arrays import Distances, Mask, Positions, Scores

_LARGEST: Final = np.finfo(np.float32).max


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What one `$knn` found over all shards: positions of insertion, nearest first, and distances."""

    inserted: Positions
    distances: Distances

    def within(self, distance: float) -> Neighbours:
        """Those not further away."""
        with np.errstate(over="ignore"):
            near = self.distances <= np.float32(distance)
        return Neighbours(self.inserted[near], self.distances[near])


def nearest_of(inserted: Sequence[Positions], distances: Sequence[Distances], limit: int) -> Neighbours:
    """The nearest of all, from arrays of candidates; equal distances by insertion."""
    positions, measured = np.concatenate(inserted), np.concatenate(distances)
    order = np.lexsort((positions, measured))[:limit]
    return Neighbours(positions[order], measured[order])


@dataclass(frozen=True, slots=True)
class Ranked:
    """Records in the order of an answer: positions of insertion and scores, parallel."""

    inserted: Positions
    scores: Scores


@dataclass(frozen=True, slots=True)
class _Values:
    """Of an expression: one value per candidate, meaningless outside of the support."""

    support: Mask
    values: Scores
    default: np.float32 | None

    def filled(self) -> Scores:
        return self.values if self.default is None else np.where(self.support, self.values, self.default)


def evaluate(expression: Expression, found: Sequence[Neighbours]) -> Ranked:
    """The support of the expression, the least score first, ties by insertion. `found` by the place of the `$knn`."""
    candidates = np.unique(np.concatenate([np.empty(0, np.int64), *(one.inserted for one in found)]))
    with np.errstate(all="ignore"):
        values = _evaluate(expression, _Candidates(candidates, found))
    places = np.flatnonzero(values.support)
    scores = values.values[places]
    # Equal but for the sign of zero: -0 comes first. NaN is behind everything, whatever its sign.
    positive_zero = (scores == 0) & ~np.signbit(scores)
    places = places[np.lexsort((places, positive_zero, scores))]
    return Ranked(candidates[places], values.values[places])


class _Candidates:
    def __init__(self, inserted: Positions, found: Sequence[Neighbours]) -> None:
        self._inserted = inserted
        self._found = found

    def values(self, knn: KnnValue) -> _Values:
        found = self._found[knn.place]
        places = np.searchsorted(self._inserted, found.inserted)
        values = self.constant(0.0).values
        values[places] = np.arange(len(places)) if knn.return_rank else found.distances
        support = self.constant(0.0).support
        support[places] = True
        return _Values(support, values, None if knn.default is None else np.float32(knn.default))

    def constant(self, value: float | np.float32) -> _Values:
        count = len(self._inserted)
        return _Values(np.zeros(count, np.bool_), np.zeros(count, np.float32), np.float32(value))


def _evaluate(expression: Expression, candidates: _Candidates) -> _Values:
    if isinstance(expression, Constant):
        return candidates.constant(expression.value)
    if isinstance(expression, KnnValue):
        return candidates.values(expression)
    return _operate(expression, candidates)


def _operate(combination: Combination, candidates: _Candidates) -> _Values:
    operator = combination.operator
    # One after the other: columns of all operands at once could be more than fits into memory.
    operands = (_evaluate(operand, candidates) for operand in combination.operands)
    apply = _UNARY.get(operator)
    if apply is not None:
        (only,) = operands
        return _Values(only.support, apply(only.values), None if only.default is None else apply(only.default))
    first = candidates.constant(_NEUTRAL[operator]) if operator in _NEUTRAL else next(operands)
    function = _BINARY[operator]
    return reduce(lambda left, right: _merged(function, left, right), operands, first)


def _merged(function: Callable[[Any, Any], Any], left: _Values, right: _Values) -> _Values:
    values = function(left.filled(), right.filled())
    if left.default is not None and right.default is not None:
        return _Values(left.support | right.support, values, function(left.default, right.default))
    if left.default is not None:
        return _Values(right.support, values, None)
    if right.default is not None:
        return _Values(left.support, values, None)
    return _Values(left.support & right.support, values, None)


_UNARY: Final[Mapping[Operator, Callable[[Any], Any]]] = {
    Operator.ABS: np.abs,
    Operator.EXP: np.exp,
    Operator.LOG: np.log,
}
_BINARY: Final[Mapping[Operator, Callable[[Any, Any], Any]]] = {
    Operator.SUM: np.add,
    Operator.MUL: np.multiply,
    Operator.MAX: np.fmax,  # of NaN and a number, the number
    Operator.MIN: np.fmin,
    Operator.SUB: np.subtract,
    Operator.DIV: np.divide,
}
_NEUTRAL: Final[Mapping[Operator, np.float32]] = {
    Operator.SUM: np.float32(0),
    Operator.MUL: np.float32(1),
    Operator.MAX: -_LARGEST,
    Operator.MIN: _LARGEST,
}
