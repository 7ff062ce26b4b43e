from __future__ import annotations

from typing import Any

import pytest

from frontend.parse.search import check_search, read_search
from frontend.parse.sparse import SparseVector
from shared.errors import InvalidArgument, MalformedBody, WrongShape
from shared.records.where import Compare, MetadataCompare
from shared.search.expression import KnnValue
from shared.search.model import GroupBy

KNN: dict[str, Any] = {"$knn": {"query": [1, 2]}}


def read(**payload: Any) -> Any:
    return read_search({"searches": [payload]}).searches


def grouped(keys: Any, aggregate: Any, rank: Any = KNN) -> None:
    check_search(read(rank=rank, group_by={"keys": keys, "aggregate": aggregate}))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"searches": None},
        {"searches": {}},
        {"searches": [None]},
        {"searches": [{}], "read_level": "bogus"},
        {"searches": [{"filter": {"a": None}}]},
        {"searches": [{"filter": "x"}]},
        {"searches": [{"filter": {"#document": {"$regex": "["}}}]},
        {"searches": [{"rank": {"$bogus": 1}}]},
        {"searches": [{"rank": "$val"}]},
        {"searches": [{"rank": {"$abs": ""}}]},
        {"searches": [{"rank": {"$val": "x"}}]},
        {"searches": [{"rank": {"$val": True}}]},
        {"searches": [{"rank": {"$sum": {"$val": 1}}}]},
        {"searches": [{"rank": {"$sub": {"left": {"$val": 1}}}}]},
        {"searches": [{"rank": {"$div": [{"$val": 1}]}}]},
        {"searches": [{"rank": {"$knn": {}}}]},
        {"searches": [{"rank": {"$knn": {"query": "text"}}}]},
        {"searches": [{"rank": {"$knn": {"query": [1, "x"]}}}]},
        {"searches": [{"rank": {"$knn": {"query": {"indices": [1]}}}}]},
        {"searches": [{"rank": {"$knn": {"query": [1], "limit": -1}}}]},
        {"searches": [{"rank": {"$knn": {"query": [1], "return_rank": 1}}}]},
        {"searches": [{"limit": None}]},
        {"searches": [{"limit": 5}]},
        {"searches": [{"limit": {"limit": -1}}]},
        {"searches": [{"limit": {"limit": 2**32}}]},
        {"searches": [{"limit": {"offset": None}}]},
        {"searches": [{"limit": {"offset": 1.0}}]},
        {"searches": [{"select": None}]},
        {"searches": [{"select": ["#score"]}]},
        {"searches": [{"select": {"keys": [1]}}]},
        {"searches": [{"group_by": None}]},
        {"searches": [{"group_by": {"keys": None}}]},
        {"searches": [{"group_by": {"keys": ["c"], "aggregate": {"$bogus": {"keys": ["c"], "k": 1}}}}]},
        {"searches": [{"group_by": {"keys": ["c"], "aggregate": {"$min_k": {"keys": ["c"]}}}}]},
        {"searches": [{"group_by": {"keys": ["c"], "aggregate": {}}}]},
    ],
)
def test_another_shape_is_refused(body: Any) -> None:
    with pytest.raises(WrongShape, match=r"^Failed to deserialize the JSON body into the target type: "):
        read_search(body)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"rank": {"$bogus": 1}}, "searches[1].rank: unknown operator `$bogus`"),
        ({"rank": {"$sum": {"$val": 1}}}, "searches[1].rank: expected a list of expressions"),
        (
            {"rank": {"$abs": {"$knn": {"query": [1], "max_distance": "x"}}}},
            "searches[1].rank: $knn: Expected `float | null`, got `str` - at `$.max_distance`",
        ),
        ({"rank": {"$knn": {"query": "text"}}}, "searches[1].rank: $knn: expected a vector"),
        ({"filter": {"a": None}}, "searches[1].filter: Invalid where clause"),
        ({"group_by": {"aggregate": {}}}, "searches[1].group_by: expected one aggregate, `$min_k` or `$max_k`"),
        ({"limit": 5}, "Expected `object`, got `int` - at `$.searches[1].limit`"),
    ],
)
def test_what_is_refused_says_in_which_search_it_stands(payload: Any, message: str) -> None:
    with pytest.raises(WrongShape) as caught:
        read_search({"searches": [{}, payload]})
    assert caught.value.message == f"Failed to deserialize the JSON body into the target type: {message}"


@pytest.mark.parametrize("rank", [{}, {"$val": 1, "$abs": {"$val": 1}}, 5, {"$abs": 1}, {"$sum": [5]}])
def test_a_rank_without_exactly_one_operator_is_a_syntax_error(rank: Any) -> None:
    with pytest.raises(MalformedBody, match=r"^Failed to parse the request body as JSON: "):
        read(rank=rank)


@pytest.mark.parametrize("level", [None, 1, True, []])
def test_a_read_level_that_is_no_text_is_a_syntax_error(level: Any) -> None:
    with pytest.raises(MalformedBody):
        read_search({"searches": [], "read_level": level})


def test_a_rank_nested_beyond_all_reason_is_refused() -> None:
    rank: Any = {"$val": 1}
    for _ in range(200):
        rank = {"$abs": rank}
    with pytest.raises(MalformedBody):
        read(rank=rank)


def test_everything_a_client_sends_is_accepted() -> None:
    (payload,) = read(
        filter={"cat": "x"},
        rank={
            "$sum": [
                {"$mul": [{"$val": 0.5}, KNN]},
                {"$sub": [{"$exp": {"$log": {"$val": 2}}}, {"$abs": {"$val": -1}}]},
                {"$div": {"left": {"$max": []}, "right": {"$min": [{"$val": 1}]}}},
                {"$knn": {"query": {"indices": [1, 3], "values": [1, 2]}, "key": "sv", "limit": 5, "default": 2}},
            ]
        },
        group_by={"keys": ["c"], "aggregate": {"$max_k": {"keys": ["#score", "price"], "k": 2}}},
        limit={"offset": 1, "limit": None},
        select={"keys": ["#score", "title"]},
        zzz=1,
    )
    assert payload.where == MetadataCompare("cat", Compare.EQ, "x")
    assert [knn.key for knn in payload.knns] == ["#embedding", "sv"]
    assert isinstance(payload.knns[1].query, SparseVector)
    assert payload.knns[1].limit == 5
    assert payload.rank.expression.operands[3] == KnnValue(1, 2.0)
    assert (payload.offset, payload.limit, payload.select) == (1, None, {"#score", "title"})
    assert payload.group_by == GroupBy(["c"], ["#score", "price"], 2, greatest=True)
    check_search((payload,))


@pytest.mark.parametrize("payload", [{}, {"filter": None, "rank": None, "group_by": {}}, {"filter": {}}])
def test_absent_null_and_empty_parts_mean_none(payload: Any) -> None:
    searches = read(**payload)
    check_search(searches)
    assert searches[0].where is None
    assert searches[0].rank is None
    assert searches[0].group_by is None


MIN_SCORE = {"$min_k": {"keys": ["#score"], "k": 1}}


@pytest.mark.parametrize(
    ("keys", "aggregate", "rank", "message"),
    [
        (["c"], None, None, "group_by: group_by keys and aggregate must both be specified or both be omitted"),
        ([], MIN_SCORE, KNN, "group_by: group_by keys and aggregate must both be specified or both be omitted"),
        (["c"], MIN_SCORE, None, "__all__: group_by requires rank expression to be specified"),
        (
            ["#score"],
            MIN_SCORE,
            KNN,
            "group_by: group_by keys must be metadata fields (cannot use #score, #document, #embedding, or #metadata)",
        ),
        (["c"], {"$min_k": {"keys": [], "k": 1}}, KNN, "group_by: aggregate keys must not be empty"),
        (["c"], {"$min_k": {"keys": ["#score"], "k": 0}}, KNN, "group_by: aggregate k must be greater than 0"),
        (["c"], {"$min_k": {"keys": [], "k": 0}}, KNN, "group_by: aggregate keys must not be empty"),
        (["c"], {"$min_k": {"keys": ["#document"], "k": 0}}, KNN, "group_by: aggregate k must be greater than 0"),
        (
            ["c"],
            {"$min_k": {"keys": ["#document"], "k": 1}},
            KNN,
            (
                "group_by: aggregate keys must be metadata fields or #score "
                "(cannot use #document, #embedding, or #metadata)"
            ),
        ),
    ],
)
def test_the_rules_of_group_by(keys: list[str], aggregate: Any, rank: Any, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        grouped(keys, aggregate, rank)
    assert caught.value.message == f"Validation error: searches[0].{message}"


def test_a_bad_sparse_query_names_its_search() -> None:
    searches = read_search(
        {"searches": [{}, {"rank": {"$abs": {"$knn": {"query": {"indices": [2, 1], "values": [1, 2]}}}}}]}
    ).searches
    with pytest.raises(InvalidArgument) as caught:
        check_search(searches)
    assert caught.value.message.startswith("Validation error: searches[1].rank: Invalid sparse vector in KNN query: ")


@pytest.mark.parametrize(
    ("searches", "problem"),
    [
        ([{}] * 257, "Limit exceeded: searches: 257 searches, at most 256"),
        ([{"rank": {"$sum": [KNN] * 600}}] * 2, "searches: a request has at most 1024 $knn"),
        ([{"rank": {"$sum": [{"$val": 1}] * 9000}}] * 2, "searches: the rank expressions of a request have at most"),
        ([{"facets": {"keys": ["k"] * 65}}], "searches: 65 keys of facets and groups, at most 64"),
        ([{"facets": {"keys": ["chroma:hidden"]}}], r"searches\[0\].facets: facets keys must be metadata fields"),
        ([{"order_by": [{"key": "k"}] * 65}], r"searches\[0\].order_by: order_by has at most 64 keys"),
    ],
)
def test_a_request_that_asks_for_too_much_is_refused(searches: Any, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem.replace("$", r"\$")):
        check_search(read_search({"searches": searches}).searches)


def test_as_much_as_a_request_may_have_is_accepted() -> None:
    check_search(read_search({"searches": [{"rank": {"$sum": [KNN] * 4}}] * 256}).searches)
    check_search(read(rank={"$sum": [{"$val": 1}] * 16_383}))
