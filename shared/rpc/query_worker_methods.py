"""The methods of a query worker, which frontends call."""

from __future__ import annotations

from typing import Final

from shared.rpc.messages import (
    CountRequest,
    CountResponse,
    GetRequest,
    GetResponse,
    PrefetchRequest,
    QueryRequest,
    QueryResponse,
)
from shared.rpc.method import Method, RawMethod
from shared.rpc.search_messages import (
    FrequenciesRequest,
    FrequenciesResponse,
    NearestRequest,
    NearestResponse,
    OrderedRequest,
    OrderedResponse,
    SearchRequest,
    TallyRequest,
    TallyResponse,
)

ReadRequest = (
    CountRequest
    | GetRequest
    | QueryRequest
    | SearchRequest
    | NearestRequest
    | FrequenciesRequest
    | OrderedRequest
    | TallyRequest
)
"""Methods of a query worker that read one shard."""

ShardRequest = ReadRequest | PrefetchRequest
"""Methods of a query worker that concern one shard."""

COUNT: Final = Method("count", CountRequest, CountResponse)

GET: Final = Method("get", GetRequest, GetResponse)
GET_BODY: Final = RawMethod("get", GetRequest)
"""`GET` for requests with `include`: the answer is the body of the client's answer."""

QUERY: Final = Method("query", QueryRequest, QueryResponse)
QUERY_BODY: Final = RawMethod("query", QueryRequest)
"""`QUERY` for requests with `include`: the answer is the body of the client's answer."""

PREFETCH: Final = RawMethod("prefetch", PrefetchRequest)
"""The answer is empty."""

SEARCH: Final = RawMethod("search", SearchRequest)
"""The answer is the body of the client's answer."""

SEARCH_NEAREST: Final = Method("search.nearest", NearestRequest, NearestResponse)
SEARCH_FREQUENCIES: Final = Method("search.frequencies", FrequenciesRequest, FrequenciesResponse)
SEARCH_ORDERED: Final = Method("search.ordered", OrderedRequest, OrderedResponse)
SEARCH_TALLY: Final = Method("search.tally", TallyRequest, TallyResponse)

NAMES: Final = frozenset(
    method.name
    for method in (
        COUNT, GET, QUERY, PREFETCH, SEARCH, SEARCH_NEAREST, SEARCH_FREQUENCIES, SEARCH_ORDERED, SEARCH_TALLY
    )
)  # fmt: skip
"""On the wire."""
