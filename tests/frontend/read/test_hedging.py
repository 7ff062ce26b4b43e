"""How many calls may be made twice, and which never are."""

import math
import random

import pytest

from frontend.read.hedging import HEDGES_MIN, WINDOW_S, HedgeBudget, costly, estimated_rows
from shared.records.selection import Selection
from shared.records.where import All, AnyOf, Compare, DocumentContains, DocumentRegex, MetadataCompare, MetadataIn
from shared.rpc.messages import CountRequest, GetRequest, QueryRequest, Shard
from shared.rpc.query_worker_methods import ReadRequest
from shared.rpc.search_messages import (
    FrequenciesRequest,
    NearestRequest,
    OrderedRequest,
    SearchRequest,
    TallyRequest,
)
from shared.search.expression import Constant
from shared.search.model import Dense, Facets, Knn, OrderKey, Search, Sparse

SHARD = Shard("c")
METADATA = MetadataCompare("k", Compare.EQ, 1)
REGEX = AnyOf([METADATA, All([METADATA, DocumentRegex("a.*b")])])


# ---- the budget


def test_a_share_of_the_calls_is_hedged_and_no_more() -> None:
    budget = HedgeBudget(5)
    for _ in range(1000):
        budget.count_call(3.0)
    assert sum(budget.take(3.5) for _ in range(1000)) == 50


def test_a_few_calls_have_a_small_minimum_unless_hedging_is_off() -> None:
    budget, off = HedgeBudget(5), HedgeBudget(0)
    for some in (budget, off):
        some.count_call(0.0)
    assert sum(budget.take(0.0) for _ in range(10)) == HEDGES_MIN
    assert not off.take(0.0)


def test_calls_that_were_long_ago_allow_nothing() -> None:
    budget = HedgeBudget(5)
    for _ in range(1000):
        budget.count_call(100.0)
    assert sum(budget.take(100.0 + WINDOW_S - 1) for _ in range(10)) == 10
    assert sum(budget.take(100.0 + WINDOW_S) for _ in range(10)) == 0, "the hedges are still in the window"
    assert sum(budget.take(100.0 + 2 * WINDOW_S) for _ in range(10)) == HEDGES_MIN, "and are forgotten at last"


def test_no_hedge_exceeds_the_share_of_the_calls_before_it() -> None:
    """Bursts and pauses of calls; every call would be hedged if that were allowed."""
    chance = random.Random(1)
    budget, now = HedgeBudget(4), 50.0
    calls: list[float] = []
    hedges: list[float] = []
    for _ in range(5_000):
        now += chance.random() * 4 if chance.random() < 0.01 else chance.choice([0.0, 0.001, 0.001, 0.01])
        budget.count_call(now)
        calls.append(now)
        if budget.take(now):
            hedges.append(now)
            begin = math.floor(now) - WINDOW_S + 1
            called, hedged = (sum(time >= begin for time in times) for times in (calls, hedges))
            assert hedged <= max(HEDGES_MIN, 0.04 * called)
    assert 0.03 * len(calls) < len(hedges) < 0.05 * len(calls)


# ---- what a call costs


def query(n: int, k: int = 10, **changes: object) -> QueryRequest:
    given = {"shard": SHARD, "embeddings": b"", "n_queries": n, "dimension": 2, "k": k, "ef_search": 100}
    return QueryRequest(**(given | changes))  # type: ignore[arg-type]


def knn(limit: int = 10) -> Knn:
    return Knn(Dense(b"", ef_search=100), limit)


CHEAP: list[ReadRequest] = [
    CountRequest(SHARD),
    CountRequest(SHARD, Selection(where=METADATA)),
    GetRequest(SHARD, Selection(ids=["a", "b"])),
    GetRequest(SHARD, limit=300, embeddings=True),
    GetRequest(SHARD, inserted=bytes(8 * 100)),
    query(1),
    query(10, selection=Selection(where=METADATA)),
    SearchRequest(SHARD, [Search(rank=Constant(1.0), knns=[knn()], limit=10)]),
    SearchRequest(SHARD, [Search(limit=10, count=True)]),
    NearestRequest(SHARD, None, [knn(), Knn(Sparse("s", b"", b""), 20)]),
    FrequenciesRequest(SHARD, ["s"], [bytes(4 * 10)]),
    OrderedRequest(SHARD, None, [], 10),
    TallyRequest(SHARD, METADATA, []),
]

COSTLY: list[ReadRequest] = [
    CountRequest(SHARD, Selection(where=REGEX)),
    GetRequest(SHARD),
    GetRequest(SHARD, Selection(where=METADATA)),
    GetRequest(SHARD, Selection(ids=[str(number) for number in range(5000)])),
    GetRequest(SHARD, limit=5000),
    GetRequest(SHARD, Selection(where=DocumentContains("x")), limit=1),
    GetRequest(SHARD, inserted=bytes(8 * 5000)),
    query(100),
    query(1, k=5000),
    query(1, selection=Selection(where=REGEX)),
    SearchRequest(SHARD, [Search(rank=Constant(1.0), knns=[knn()], limit=10)] * 50),
    SearchRequest(SHARD, [Search()]),
    SearchRequest(SHARD, [Search(order_by=[OrderKey("k")], limit=1)]),
    SearchRequest(SHARD, [Search(facets=Facets(["k"], 10), limit=1)]),
    SearchRequest(SHARD, [Search(where=REGEX, limit=1)]),
    NearestRequest(SHARD, None, [knn()] * 50),
    NearestRequest(SHARD, REGEX, [knn()]),
    FrequenciesRequest(SHARD, ["s"], [bytes(4 * 5000)]),
    OrderedRequest(SHARD, None, [OrderKey("k")], 1),
    OrderedRequest(SHARD, None, [], None),
    TallyRequest(SHARD, None, ["k"]),
]


@pytest.mark.parametrize("request_", CHEAP, ids=repr)
def test_what_looks_at_few_rows_may_be_hedged(request_: ReadRequest) -> None:
    assert not costly(request_)


@pytest.mark.parametrize("request_", COSTLY, ids=lambda request: repr(request)[:80])
def test_what_may_look_at_many_rows_is_not_hedged(request_: ReadRequest) -> None:
    assert costly(request_)


def test_the_searches_of_a_request_add_up() -> None:
    one = Search(rank=Constant(1.0), knns=[knn()], limit=10)
    assert estimated_rows(SearchRequest(SHARD, [one] * 3)) == 3 * estimated_rows(SearchRequest(SHARD, [one])) == 330


def test_a_filter_of_many_operands_is_costly_and_one_of_a_few_is_not() -> None:
    for count, is_costly in ((100, False), (5000, True)):
        values = AnyOf([METADATA, MetadataIn("k", list(range(count)))])
        ids = Selection(ids=[f"r{number}" for number in range(count)])
        for request in (
            CountRequest(SHARD, Selection(where=values)),
            QueryRequest(SHARD, b"", 1, 2, 10, 100, Selection(where=values)),
            QueryRequest(SHARD, b"", 1, 2, 10, 100, ids),
            SearchRequest(SHARD, [Search(rank=Constant(1.0), where=values, select=[], limit=1)]),
            TallyRequest(SHARD, values, []),
        ):
            assert costly(request) is is_costly
