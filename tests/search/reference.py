"""docs/wire.md, section 15, in plain Python: every record is looked at, one expression node at a time.

Numbers are numpy's float32 scalars; nothing else is shared with what is tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.model.reference import Record, matches
from tests.shared.segment import scalar as sparse

Json = dict[str, Any]
Scores = dict[int, np.float32]
"""By the record's place in insertion order."""


@dataclass(frozen=True)
class Values:
    scores: Scores
    default: np.float32 | None


def f32(value: float) -> np.float32:
    with np.errstate(all="ignore"):
        return np.float32(value)


# ---- distances


def dense_distance(space: str, query: Sequence[float], vector: Sequence[float]) -> np.float32:
    pairs = list(zip(query, vector, strict=True))
    if space == "l2":
        return f32(sum((a - b) ** 2 for a, b in pairs))
    product = float(sum(a * b for a, b in pairs))
    if space == "cosine":
        norms = math.sqrt(sum(b * b for b in vector)) * math.sqrt(sum(a * a for a in query))
        product = product / norms if norms > 0 else 0.0
    return f32(1.0 - product)


def sparse_of(value: object) -> sparse.Sparse | None:
    if isinstance(value, dict):
        return dict(zip(value["indices"], map(sparse.float32, value["values"]), strict=True))
    return None


def weighted(query: sparse.Sparse, document_frequencies: Mapping[int, int], records: int) -> sparse.Sparse:
    """BM25: rare indices weigh more."""
    return {
        index: sparse.float32(
            value * math.log1p((records - document_frequencies[index] + 0.5) / (document_frequencies[index] + 0.5))
        )
        for index, value in query.items()
    }


# ---- one search


class Searcher:
    """`records` by id in insertion order; `bm25` names the sparse keys whose queries are weighted by rarity."""

    def __init__(self, records: Mapping[str, Record], space: str, bm25: frozenset[str] = frozenset()) -> None:
        self._ids = list(records)
        self._records = list(records.values())
        self._space = space
        self._bm25 = bm25

    def search(self, payload: Json) -> Json:
        """ids, scores, and whatever else the payload asks for, of the page."""
        matching = self.matching(payload.get("filter"))
        if payload.get("rank") is None:
            order, scores = matching, None
        else:
            values = self.evaluate(payload["rank"], matching)
            order = sorted(values.scores, key=lambda place: (*total_order(values.scores[place]), place))
            scores = values.scores
        if scores is not None and payload.get("group_by"):
            order = self._grouped(payload["group_by"], order, scores)
        order = self._sorted(payload.get("order_by", []), order)
        page = payload.get("limit", {})
        begin, count = page.get("offset", 0), page.get("limit")
        order = order[begin:] if count is None else order[begin : begin + count]
        return {
            "ids": [self._ids[place] for place in order],
            "scores": [float(scores[place]) for place in order] if scores is not None else list(range(len(order))),
            "matching": len(matching),
        }

    def facets(self, where: Json | None, keys: Sequence[str], limit: int) -> Json:
        """The most frequent values among the matching records, of arrays each element once; by type and value when
        equally frequent.
        """
        found: Json = {}
        for key in keys:
            counts: dict[tuple[str, Any], int] = {}
            for place in self.matching(where):
                value = self._records[place].metadata.get(key)
                values = value if isinstance(value, list) else [value]
                for typed in {(type(one).__name__, one) for one in values if isinstance(one, str | int | float)}:
                    counts[typed] = counts.get(typed, 0) + 1
            order = sorted(counts.items(), key=lambda item: (-item[1], *item[0]))[:limit]
            found[key] = [{"value": value, "count": count} for (_, value), count in order]
        return found

    def matching(self, where: Json | None) -> list[int]:
        return [
            place for place, record in enumerate(self._records) if not where or matches(where, self._ids[place], record)
        ]

    def evaluate(self, rank: Json, matching: Sequence[int]) -> Values:
        ((operator, operand),) = rank.items()
        if operator == "$val":
            return Values({}, f32(operand))
        if operator == "$knn":
            return self._knn(operand, matching)
        if operator in UNARY:
            inner = self.evaluate(operand, matching)
            return Values({p: UNARY[operator](s) for p, s in inner.scores.items()}, mapped(operator, inner.default))
        if operator in ("$sub", "$div"):
            left, right = (operand["left"], operand["right"]) if isinstance(operand, dict) else operand
            return merged(operator, self.evaluate(left, matching), self.evaluate(right, matching))
        values = Values({}, NEUTRAL[operator])
        for child in operand:
            values = merged(operator, values, self.evaluate(child, matching))
        return values

    def neighbours(self, knn: Json, matching: Sequence[int]) -> list[tuple[float, int]]:
        """Distance and place of what a `$knn` finds, nearest first."""
        found = self._sparse(knn, matching) if isinstance(knn["query"], dict) else self._dense(knn, matching)
        reach = knn.get("max_distance")
        if reach is not None:
            found = [(distance, place) for distance, place in found if distance <= f32(reach)]
        return sorted(found)[: knn.get("limit", 16)]

    def _knn(self, knn: Json, matching: Sequence[int]) -> Values:
        found = self.neighbours(knn, matching)
        default = knn.get("default")
        by_rank = knn.get("return_rank", False)
        return Values(
            {place: f32(number) if by_rank else f32(distance) for number, (distance, place) in enumerate(found)},
            None if default is None else f32(default),
        )

    def _dense(self, knn: Json, matching: Sequence[int]) -> list[tuple[Any, int]]:
        return [
            (dense_distance(self._space, knn["query"], self._records[place].embedding), place) for place in matching
        ]

    def _sparse(self, knn: Json, matching: Sequence[int]) -> list[tuple[Any, int]]:
        vectors = [sparse_of(record.metadata.get(knn["key"])) for record in self._records]
        query = sparse_of(knn["query"])
        assert query is not None
        if knn["key"] in self._bm25:
            document_frequencies = {index: sum(v is not None and index in v for v in vectors) for index in query}
            query = weighted(query, document_frequencies, len(vectors))
        return list(sparse.nearest(query, vectors, matching))

    def _grouped(self, group_by: Json, order: list[int], scores: Scores) -> list[int]:
        ((name, aggregate),) = group_by["aggregate"].items()
        groups: dict[str, list[int]] = {}
        for place in order:
            metadata = self._records[place].metadata
            group = repr([(type(metadata.get(key)).__name__, metadata.get(key)) for key in group_by["keys"]])
            groups.setdefault(group, []).append(place)
        kept: set[int] = set()
        for members in groups.values():
            # One key at a time, the last first, each sort stable: that is the order by all keys in turn.
            for key in reversed(aggregate["keys"]):
                members.sort(key=lambda p, key=key: self._standing(p, key, scores), reverse=name == "$max_k")  # type: ignore[misc]
            kept |= set(members[: aggregate["k"]])
        return [place for place in order if place in kept]

    def _standing(self, place: int, key: str, scores: Scores) -> tuple[Any, ...]:
        if key == "#score":
            return (9, *total_order(scores[place])[:2])
        return of_type(self._records[place].metadata.get(key))

    def _sorted(self, order_by: Sequence[Json], order: list[int]) -> list[int]:
        if not order_by:
            return order
        order = sorted(order)
        for step in reversed(order_by):
            values = {place: self._records[place].metadata.get(step["key"]) for place in order}
            have = [place for place in order if isinstance(values[place], str | int | float)]
            lack = [place for place in order if place not in set(have)]
            have.sort(key=lambda p, v=values: comparable(v[p]), reverse=step.get("direction") == "desc")
            order = have + lack
        return order


def comparable(value: Any) -> tuple[int, Any]:
    """booleans < numbers < strings"""
    return (0 if isinstance(value, bool) else 2 if isinstance(value, str) else 1, value)


def of_type(value: Any) -> tuple[Any, ...]:
    if value is None:
        return (0,)
    for number, kind in enumerate((bool, int, float, str), start=1):
        if type(value) is kind:
            return (number, value)
    return (5, [of_type(item) for item in value])


def total_order(score: np.float32) -> tuple[bool, float, bool]:
    """-0 before 0, NaN last."""
    if math.isnan(score):
        return (True, 0.0, False)
    return (False, float(score), score == 0 and not np.signbit(score))


# ---- operators


def merged(operator: str, left: Values, right: Values) -> Values:
    if left.default is not None and right.default is not None:
        support = left.scores.keys() | right.scores.keys()
        default = BINARY[operator](left.default, right.default)
    elif left.default is not None:
        support, default = set(right.scores), None
    elif right.default is not None:
        support, default = set(left.scores), None
    else:
        support, default = left.scores.keys() & right.scores.keys(), None
    scores = {
        place: BINARY[operator](left.scores.get(place, left.default), right.scores.get(place, right.default))
        for place in support
    }
    return Values(scores, default)


def mapped(operator: str, default: np.float32 | None) -> np.float32 | None:
    return None if default is None else UNARY[operator](default)


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.float32(function(*args))

    return call


def exponential(value: np.float32) -> float:
    return math.exp(value) if value < 700 or math.isnan(value) else math.inf


def logarithm(value: np.float32) -> float:
    return -math.inf if value == 0 else math.log(value) if not value < 0 else math.nan


def greater(left: np.float32, right: np.float32) -> np.float32:
    """0 is greater than -0, and any number than NaN."""
    if math.isnan(left) or math.isnan(right):
        return right if math.isnan(left) else left
    return max(left, right, key=lambda value: (value, not np.signbit(value)))


def less(left: np.float32, right: np.float32) -> np.float32:
    return -greater(-left, -right)


UNARY = {"$abs": quiet(np.abs), "$exp": quiet(exponential), "$log": quiet(logarithm)}
BINARY = {
    "$sum": quiet(np.add),
    "$sub": quiet(np.subtract),
    "$mul": quiet(np.multiply),
    "$div": quiet(np.divide),
    "$max": quiet(greater),
    "$min": quiet(less),
}
LARGEST = np.finfo(np.float32).max
NEUTRAL = {"$sum": f32(0), "$mul": f32(1), "$max": -LARGEST, "$min": LARGEST}
