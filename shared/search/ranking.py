"""Rank expressions evaluated over the candidates of a search (docs/wire.md, section 15). Pure.

The candidates are all records that some `$knn` of the expression found. Every expression has a *support*, the
candidates that it gives a value to, and perhaps a *default* for all other records:

```text
expression      support                                     default
$knn            what the search found                       as given
$val            nothing                                     the number
one operand     that of its operand                         of the operand's default
two operands    both have defaults: either's support        of both defaults
                one has: the support of the other           none
                none has: what both support                 none
```

An operator of many operands begins with its neutral element, which is a constant, and takes them one after the other.
Everything is float32, and no arithmetic fails: what has no value is NaN or infinite, and NaN comes last. Of 0 and -0,
the greater is 0 and the less is -0. Results have the same bits on every processor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import numpy as np

from shared.process import work
from shared.search.expression import Combination, Constant, Expression, KnnValue, Operator
from shared.vectors import elementary
from shared.vectors.arrays import Distances, Float64Array, Mask, Positions, Scores

_LARGEST: Final = np.finfo(np.float32).max


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The result of one `$knn` over all shards: positions of insertion, nearest first, and distances, parallel."""

    inserted: Positions
    distances: Distances

    def within(self, distance: float) -> Neighbours:
        """The neighbours that are not further away than `distance`."""
        with np.errstate(over="ignore"):
            near = self.distances <= np.float32(distance)
        return Neighbours(self.inserted[near], self.distances[near])


def nearest_of(inserted: Sequence[Positions], distances: Sequence[Distances], limit: int) -> Neighbours:
    """The `limit` nearest of several results, given by their positions and distances; equal distances by insertion."""
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
    """The value of an expression for each candidate, meaningless outside of the support, and for all other records."""

    support: Mask
    values: Scores
    default: np.float32 | None

    def filled(self) -> Scores:
        """The values, with the default outside of the support where there is one."""
        return self.values if self.default is None else np.where(self.support, self.values, self.default)


def evaluate(expression: Expression, found: Sequence[Neighbours]) -> Ranked:
    """The support of the expression, the least score first, ties by insertion. `found[i]` is the result of the i-th
    `$knn` of the search.
    """
    candidates = np.unique(np.concatenate([np.empty(0, np.int64), *(neighbours.inserted for neighbours in found)]))
    with np.errstate(all="ignore"):
        values = _evaluate(expression, _Candidates(candidates, found))
    supported = np.flatnonzero(values.support)
    scores = values.values[supported]
    # Equal but for the sign of zero: -0 comes first. NaN is behind everything, whatever its sign.
    positive_zero = (scores == 0) & ~np.signbit(scores)
    order = supported[np.lexsort((supported, positive_zero, scores))]
    return Ranked(candidates[order], values.values[order])


class _Candidates:
    """The records that some `$knn` found, by ascending position of insertion; makes the values of the tree's leaves."""

    def __init__(self, inserted: Positions, found: Sequence[Neighbours]) -> None:
        self._inserted = inserted
        self._found = found

    def values(self, knn: KnnValue) -> _Values:
        found = self._found[knn.place]
        indices = np.searchsorted(self._inserted, found.inserted)
        values = self.constant(0.0).values
        values[indices] = np.arange(len(indices)) if knn.return_rank else found.distances
        support = self.constant(0.0).support
        support[indices] = True
        return _Values(support, values, None if knn.default is None else np.float32(knn.default))

    def constant(self, value: float | np.float32) -> _Values:
        count = len(self._inserted)
        return _Values(np.zeros(count, np.bool_), np.zeros(count, np.float32), np.float32(value))


def _evaluate(expression: Expression, candidates: _Candidates) -> _Values:
    work.check()
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


def _rounded(function: Callable[[Float64Array], Float64Array]) -> Callable[[Any], Any]:
    """`function` of float32, an array or a single number, computed in float64."""
    return lambda values: function(values.astype(np.float64)).astype(np.float32)[()]


# numpy's fmax and fmin take either of two zeros, by the processor and by the place in an array.


def _greater(left: Any, right: Any) -> Any:
    """The number, of NaN and a number."""
    return np.where((left == 0) & (right == 0), left + right, np.fmax(left, right))[()]


def _less(left: Any, right: Any) -> Any:
    """The number, of NaN and a number."""
    return np.where((left == 0) & (right == 0), -(-left - right), np.fmin(left, right))[()]


_UNARY: Final[Mapping[Operator, Callable[[Any], Any]]] = {
    Operator.ABS: np.abs,
    Operator.EXP: _rounded(elementary.exp),
    Operator.LOG: _rounded(elementary.log),
}
_BINARY: Final[Mapping[Operator, Callable[[Any, Any], Any]]] = {
    Operator.SUM: np.add,
    Operator.MUL: np.multiply,
    Operator.MAX: _greater,
    Operator.MIN: _less,
    Operator.SUB: np.subtract,
    Operator.DIV: np.divide,
}
_NEUTRAL: Final[Mapping[Operator, np.float32]] = {
    Operator.SUM: np.float32(0),
    Operator.MUL: np.float32(1),
    Operator.MAX: -_LARGEST,
    Operator.MIN: _LARGEST,
}
