"""Expressions, groups and orders against the plain reference; the neighbours are the reference's own."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.parse.rank import read_rank
from frontend.parse.search import read_search
from shared.search.grouping import kept_of_groups
from shared.search.model import GroupBy
from shared.search.ranking import Neighbours, Ranked, evaluate
from tests.model import strategies as model
from tests.model.reference import Collection
from tests.search import strategies
from tests.search.reference import Searcher

ROWS = model.rows(strategies.metadatas, model.vectors)
NAN, INFINITE = float("nan"), float("inf")


def collection(rows: list[Any], space: str) -> Collection:
    made = Collection("", "", space, None)
    made.add(rows)
    return made


def knns_of(rank: Any) -> list[dict[str, Any]]:
    """In the order of their places."""
    if isinstance(rank, list):
        return [knn for child in rank for knn in knns_of(child)]
    if not isinstance(rank, dict):
        return []
    if "$knn" in rank:
        return [rank["$knn"]]
    return [knn for child in rank.values() for knn in knns_of(child)]


def ranked(searcher: Searcher, payload: dict[str, Any]) -> Ranked:
    matching = searcher.matching(payload.get("filter"))
    found = []
    for knn in knns_of(payload["rank"]):
        neighbours = searcher.neighbours(knn, matching)
        found.append(
            Neighbours(
                np.array([place for _, place in neighbours], np.int64),
                np.array([distance for distance, _ in neighbours], np.float32),
            )
        )
    return evaluate(read_rank(payload["rank"]).expression, found)


def same_scores(found: list[float], expected: list[float]) -> bool:
    return bool(np.array_equal(np.array(found, np.float32), np.array(expected, np.float32), equal_nan=True))


@given(rows=ROWS, space=st.sampled_from(model.SPACES), payload=strategies.ranked_searches)
def test_an_expression_ranks_as_the_reference_says(rows: list[Any], space: str, payload: dict[str, Any]) -> None:
    records = collection(rows, space).records
    searcher = Searcher(records, space)
    expected = searcher.search({name: payload[name] for name in ("rank", "filter") if name in payload})

    found = ranked(searcher, payload)

    ids = list(records)
    assert [ids[place] for place in found.inserted.tolist()] == expected["ids"]
    assert same_scores(found.scores.tolist(), expected["scores"])


@given(rows=ROWS, payload=strategies.ranked_searches, group_by=strategies.group_bys)
def test_groups_keep_the_records_that_the_reference_keeps(
    rows: list[Any], payload: dict[str, Any], group_by: dict[str, Any]
) -> None:
    records = collection(rows, "l2").records
    searcher = Searcher(records, "l2")
    payload = {**payload, "group_by": group_by, "limit": {}, "order_by": []}
    (parsed,) = read_search({"searches": [payload]}).searches
    assert parsed.group_by is not None

    order = ranked(searcher, payload)
    all_records = list(records.values())
    metadatas = [all_records[place].metadata for place in order.inserted.tolist()]
    kept = kept_of_groups(parsed.group_by, order.scores.tolist(), metadatas)

    ids = list(records)
    assert [ids[order.inserted[place]] for place in kept] == searcher.search(payload)["ids"]


def scores(rank: Any, *found: dict[int, float]) -> dict[int, float]:
    neighbours = [Neighbours(np.array(list(one), np.int64), np.array(list(one.values()), np.float32)) for one in found]
    answer = evaluate(read_rank(rank).expression, neighbours)
    return dict(zip(answer.inserted.tolist(), answer.scores.tolist(), strict=True))


KNN: dict[str, Any] = {"$knn": {"query": [0]}}


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        ({"$div": [KNN, {"$val": 0}]}, {2: INFINITE, 1: NAN}),
        ({"$log": KNN}, {1: -INFINITE, 2: 0.0}),
        ({"$log": {"$sub": [{"$val": -1}, KNN]}}, {1: NAN, 2: NAN}),
        ({"$exp": {"$mul": [KNN, {"$val": 1000}]}}, {1: 1.0, 2: INFINITE}),
        ({"$max": [{"$log": {"$sub": [{"$val": -1}, KNN]}}, {"$val": 3}]}, {1: 3.0, 2: 3.0}),
        ({"$sum": []}, {}),
        ({"$sum": [{"$val": 1}, {"$val": 2}]}, {}),
        ({"$mul": [{"$val": 1e39}, KNN]}, {2: INFINITE, 1: NAN}),
    ],
)
def test_no_arithmetic_fails_and_nan_comes_last(rank: Any, expected: dict[int, float]) -> None:
    found = scores(rank, {1: 0.0, 2: 1.0})
    assert list(found) == list(expected)
    assert same_scores(list(found.values()), list(expected.values()))


def test_minus_zero_comes_before_zero_and_ties_go_by_insertion() -> None:
    minus = {"$mul": [{"$val": -1}, {"$knn": {"query": [0], "limit": 1, "default": -0.0}}]}
    assert list(scores({"$knn": {"query": [0]}}, {3: 0.0, 1: -0.0, 2: 0.0})) == [1, 2, 3]
    assert scores(minus, {7: 0.0}) == {7: 0.0}


@pytest.mark.parametrize("count", [1, 2, 3, 17, 64])
def test_zero_is_greater_than_minus_zero_at_every_place(count: int) -> None:
    zeros, minus = dict.fromkeys(range(count), 0.0), {"$val": -0.0}
    for operands in ([KNN, minus], [minus, KNN]):
        assert not np.signbit(list(scores({"$max": operands}, zeros).values())).any()
        assert np.signbit(list(scores({"$min": operands}, zeros).values())).all()


def test_reciprocal_rank_fusion_as_the_clients_compose_it() -> None:
    def part(weight: float, **options: Any) -> Any:
        knn = {"$knn": {"query": [0], "return_rank": True, **options}}
        return {"$div": {"left": {"$val": weight}, "right": {"$sum": [{"$val": 60}, knn]}}}

    rank = {"$mul": [{"$val": -1}, {"$sum": [part(1.0, default=1000), part(0.5, default=1000)]}]}
    found = scores(rank, {1: 0.1, 2: 0.2}, {2: 5.0, 3: 6.0})
    expected = {
        2: -(1 / 61 + 0.5 / 60),
        1: -(1 / 60 + 0.5 / 1060),
        3: -(1 / 1060 + 0.5 / 61),
    }
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-6)


def test_values_of_different_types_are_different_groups() -> None:
    by_score = GroupBy(["v"], ["#score"], 1, greatest=False)
    metadatas: list[dict[str, Any]] = [{"v": 1}, {"v": 1.0}, {"v": True}, {"v": "1"}, {}, {"v": [1]}, {"v": 1}]
    assert kept_of_groups(by_score, [0.0] * 7, metadatas) == [0, 1, 2, 3, 4, 5]
