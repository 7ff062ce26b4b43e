from typing import Any

import orjson
import pytest

from frontend.parse.filter_limits import check_filters
from frontend.parse.json_counts import check_counts
from frontend.parse.search import check_search, read_search
from frontend.parse.selectors import Selectors
from frontend.parse.writes import read_write
from frontend.read.result_limits import asked_by_query, asked_by_searches, check_results
from frontend.request_limits import RequestLimits
from shared.errors import LimitExceeded, Unavailable
from shared.records.model import Include, Op
from tests.frontend.fakes import new_collection

SMALL = RequestLimits(
    filter_clauses_max=4, filter_values_max=4, filter_bytes_max=60, regexes_max=2, regex_bytes_max=6, ids_max=3,
    id_bytes_max=4, document_bytes_max=6, uri_bytes_max=5, metadata_keys_max=2, metadata_key_bytes_max=4,
    metadata_value_bytes_max=7, metadata_pairs_max=3, dimensions_max=4, results_max=100, facets_max=3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("clause", "refusal"),
    [
        ({"a": {"$in": [1, 2, 3, 4, 5]}}, "where: 5 values of $in and $nin, at most 4"),
        ({"$and": [{"a": {"$in": [1, 2]}}, {"a": {"$nin": [1, 2, 3]}}]}, "5 values of $in and $nin, at most 4"),
        ({"$or": [{"a": 1}] * 4}, "where: 5 clauses, at most 4"),
        ({"$and": [{"$or": [{"$and": [{"$or": [{"a": 1}]}]}]}]}, "5 clauses, at most 4"),
        ({"a": {"$eq": "x" * 60}}, "64 bytes of keys and operands, at most 60"),
        ({"a": {"$in": ["\u00e9" * 30]}}, "64 bytes of keys and operands, at most 60"),
        ({"k" * 61: 1}, "61 bytes of keys and operands, at most 60"),
        ({"#document": {"$regex": "1234567"}}, "7 bytes of regular expressions, at most 6"),
        ({"$or": [{"#document": {"$regex": "a"}}] * 3}, "3 regular expressions, at most 2"),
        ({"$or": [{"$not_regex": "a"}] * 3}, "3 regular expressions, at most 2"),
    ],
)
def test_a_filter_over_a_limit_is_refused_with_limit_value_and_where(clause: Any, refusal: str) -> None:
    with pytest.raises(LimitExceeded) as caught:
        check_filters({"where": clause}, SMALL)
    assert refusal in caught.value.message


def test_all_filters_of_a_request_share_the_limits() -> None:
    check_filters({"where": {"a": {"$in": [1, 2]}}, "where_document": None}, SMALL)
    with pytest.raises(LimitExceeded, match=r"where_document: 3 regular expressions"):
        check_filters(
            {"where": {"#document": {"$regex": "a"}}, "where_document": {"$or": [{"$regex": "b"}] * 2}}, SMALL
        )
    searches = {"searches": [{"filter": {"a": {"$in": [1, 2]}}}] * 3}
    with pytest.raises(LimitExceeded, match=r"searches\[2\].filter: 6 values"):
        read_search(searches, SMALL)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"ids": ["a", "b", "c", "d"]}, "ids: 4 records, at most 3"),
        ({"ids": ["a", "12345"]}, "ids[1]: 5 bytes of a record's id, at most 4"),
        ({"ids": ["\u20ac\u20ac"]}, "ids[0]: 6 bytes of a record's id, at most 4"),
        ({"documents": [None, "1234567"]}, "documents[1]: 7 bytes of a record's document, at most 6"),
        ({"uris": ["123456"]}, "uris[0]: 6 bytes of a record's uri, at most 5"),
        ({"metadatas": [{}, {"a": 1, "b": 1, "c": 1}]}, "metadatas[1]: 3 metadata keys, at most 2"),
        ({"metadatas": [{"12345": 1}]}, "5 bytes of a metadata key, at most 4"),
        ({"metadatas": [{"a": "12345678"}]}, "metadatas[0].a: 8 bytes of a metadata value, at most 7"),
        ({"metadatas": [{"a": ["1234", "5678"]}]}, "metadatas[0].a: 8 bytes of a metadata value, at most 7"),
        (
            {"metadatas": [{"a": 1, "b": 1}, {"c": 1, "d": 1}]},
            "metadatas: 4 pairs of a metadata key and a type, at most 3",
        ),
        ({"embeddings": [[1.0], [1.0] * 5]}, "embeddings: 5 dimensions, at most 4"),
        ({"embeddings": ["AACAPwAAgD8AAIA/AACAPwAAgD8="]}, "embeddings: 5 dimensions, at most 4"),
    ],
)
def test_a_write_over_a_limit_is_refused_with_limit_value_and_where(changes: dict[str, Any], refusal: str) -> None:
    with pytest.raises(LimitExceeded) as caught:
        read_write(Op.ADD, {"ids": ["a"], "embeddings": [[1.0]], **changes}, SMALL)
    assert refusal in caught.value.message


def test_a_write_at_the_limits_passes() -> None:
    metadatas = [{"1234": "1234567", "b": 1.5}, None, {"b": 1.5}]
    body = {"ids": ["1234", "b", "c"], "embeddings": [[1.0] * 4] * 3, "documents": ["123456", None, ""]}
    assert read_write(Op.ADD, body | {"metadatas": metadatas, "uris": ["12345"] * 3}, SMALL).ids == body["ids"]


def test_facets_and_groups_of_all_searches_are_counted_together() -> None:
    group = {"keys": ["g"], "aggregate": {"$min_k": {"keys": ["k"], "k": 1}}}
    search = {"facets": {"keys": ["a"]}, "group_by": group, "rank": {"$val": 1}}
    with pytest.raises(LimitExceeded, match="4 keys of facets and groups, at most 3"):
        check_search(read_search({"searches": [search] * 2}, SMALL).searches, SMALL)


class Rows:
    """A cache of rows that has this head as soon as it is refreshed."""

    def __init__(self, head: int | None) -> None:
        self.head = head

    async def refresh(self, _collection: Any) -> Any:
        if self.head is None:
            raise Unavailable("away")
        return new_collection(head=self.head)


async def refused(asked: Any, head: int | None, cached: int = 1) -> bool:
    rows: Any = Rows(head)
    try:
        await check_results(rows, new_collection(head=cached), asked, SMALL, "query")
    except LimitExceeded:
        return True
    return False


PLAIN, RICH = [Include.DISTANCES], [Include.DISTANCES, Include.DOCUMENTS]


@pytest.mark.parametrize(
    ("vectors", "n_results", "include", "head", "is_refused"),
    [
        (1, 2**32 - 1, RICH, 10**6, False),  # all there are, for one vector
        (11, 10, PLAIN, 10**6, False),
        (12, 10, PLAIN, 10**6, True),
        (2, 10, RICH, 10**6, False),
        (2, 11, RICH, 10**6, True),
        (101, 10**6, PLAIN, 1, False),  # more than there is counts as what there is
        (101, 10**6, PLAIN, 2, True),
    ],
)
async def test_the_results_of_all_vectors_but_one_are_limited(
    vectors: int, n_results: int, include: list[Include], head: int, is_refused: bool
) -> None:
    assert await refused(asked_by_query(vectors, n_results, include), head) is is_refused


async def test_a_cached_row_does_not_hide_how_large_a_collection_has_become() -> None:
    asked = asked_by_query(20, 1000, PLAIN)
    assert await refused(asked, head=1000, cached=1)
    assert not await refused(asked, head=None, cached=1), "while the catalog is away the cached row counts"


async def test_searches_without_a_limit_count_all_records() -> None:
    searches = read_search({"searches": [{"select": {"keys": ["#document"]}}] * 3}).searches
    assert not await refused(asked_by_searches(searches), head=5)
    assert await refused(asked_by_searches(searches), head=6)
    facets = read_search({"searches": [{"facets": {"keys": ["a", "b"], "limit": 10**9}}]}).searches
    assert not await refused(asked_by_searches(facets), head=50)
    assert await refused(asked_by_searches(facets), head=51)


async def test_the_defaults_leave_alone_what_clients_are_known_to_send() -> None:
    limits, many = RequestLimits(), 100_000
    ids = [f"id{number}" for number in range(many)]
    metadatas = [{f"key{key}": number for key in range(8)} for number in range(many)]
    body = {"ids": ids, "embeddings": [[0.5]] * many, "metadatas": metadatas, "documents": ["text"] * many}
    check_counts(orjson.dumps(body), limits)
    assert len(read_write(Op.UPSERT, body, limits).ids) == many
    long = {"ids": ["a"], "embeddings": [[0.5] * 4096], "documents": ["x" * 5_000_000], "uris": ["u" * 10_000]}
    assert read_write(Op.ADD, long, limits).ids == ["a"]
    assert (await Selectors(ids=ids[:39_000]).selection(None, limits)).ids == ids[:39_000]
    where = {"key": {"$in": list(range(10_000))}}
    assert (await Selectors(where=where).selection(None, limits)).where is not None
    rows: Any = Rows(40_000)
    collection = new_collection(head=40_000)
    await check_results(rows, collection, asked_by_query(1, 10**6, RICH), limits, "query")
    await check_results(rows, collection, asked_by_query(10, 10**6, PLAIN), limits, "query")
    await check_results(rows, collection, asked_by_query(10_000, 10, RICH), limits, "query")
