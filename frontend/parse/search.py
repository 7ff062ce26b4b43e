"""Parsing and checking the body of a search request (docs/wire.md, section 15).

`read_search` checks the shape before the collection is looked up; filters are part of the shape here, so a bad one is
422. `check_search` checks the rules after that. Members of a payload that are not in that section are extensions of
ours (docs/api.md); official clients send none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from frontend.parse.as_of import GivenAsOf
from frontend.parse.filter_limits import check_filters
from frontend.parse.rank import GivenKnn, GivenRank, read_rank
from frontend.parse.shapes import inside, shaped, wrong_shape
from frontend.parse.sparse import SparseVector
from frontend.parse.where import parse_where
from frontend.parse.writes import refuse_fields
from frontend.request_limits import DEFAULT_LIMITS, RequestLimits, check_limit
from shared.errors import InvalidArgument, MalformedBody, WrongShape
from shared.limits import U32_MAX
from shared.records.model import HIDDEN_METADATA_PREFIX, ReadLevel
from shared.records.where import Where
from shared.search.model import SCORE, Facets, GroupBy, OrderKey

U32 = Annotated[int, msgspec.Meta(ge=0, le=U32_MAX)]

FACET_VALUES_DEFAULT: Final = 10
"""Values that are named of each facet, unless the request says how many."""

# A few bytes of a request can ask for much work: so what a request may hold is limited.
KNNS_MAX: Final = 1024
"""Most `$knn`s in all searches of a request."""

NODES_MAX: Final = 16_384
"""Most operators in all rank expressions of a request, `$val` and `$knn` included."""

FIELDS_MAX: Final = 64
"""Most fields by which one search sorts, which it counts, or by which it groups; of each kind."""

SORT_KEYS_MAX: Final = 512
"""Most fields by which all searches of a request sort."""


class _Limit(msgspec.Struct):
    offset: U32 = 0
    limit: U32 | None = None


class _Select(msgspec.Struct):
    keys: list[str] = []


class _Aggregate(msgspec.Struct, frozen=True):
    keys: list[str]
    k: U32


class _GroupBy(msgspec.Struct):
    keys: list[str] = []
    aggregate: dict[str, _Aggregate] | None = None


class _Facets(msgspec.Struct):
    keys: list[str]
    limit: U32 = FACET_VALUES_DEFAULT


class _Payload(msgspec.Struct):
    filter: Any = None
    rank: Any = None
    group_by: _GroupBy = msgspec.field(default_factory=_GroupBy)
    limit: _Limit = msgspec.field(default_factory=_Limit)
    select: _Select = msgspec.field(default_factory=_Select)
    order_by: list[OrderKey] = []
    facets: _Facets | None = None
    count: bool = False


class _Body(msgspec.Struct):
    searches: list[_Payload]
    read_level: Any = ReadLevel.INDEX_AND_WAL.value
    as_of: GivenAsOf = None


@dataclass(frozen=True, slots=True)
class SearchPayload:
    """A search of a request: the matching records, ranked, grouped, sorted, and a page of them."""

    where: Where | None
    rank: GivenRank | None
    group_keys: tuple[str, ...]
    aggregate: tuple[str, _Aggregate] | None
    offset: int
    limit: int | None
    select: frozenset[str]
    order_by: list[OrderKey]
    facets: Facets | None
    count: bool

    @property
    def knns(self) -> tuple[GivenKnn, ...]:
        return () if self.rank is None else self.rank.knns

    @property
    def texts(self) -> list[str]:
        """The texts that its `$knn`s search for, which are still to be embedded."""
        return [knn.query for knn in self.knns if isinstance(knn.query, str)]

    @property
    def group_by(self) -> GroupBy | None:
        """The grouping of the results, None when there is none. The payload must have been checked."""
        if self.aggregate is None:
            return None
        name, aggregate = self.aggregate
        return GroupBy(list(self.group_keys), aggregate.keys, aggregate.k, greatest=name == "$max_k")


@dataclass(frozen=True, slots=True)
class SearchBody:
    """The searches of a request, and how fresh their answers must be."""

    searches: tuple[SearchPayload, ...]
    read_level: ReadLevel
    as_of: int | str | None = None
    """As of when the past is searched, as the client wrote it (`frontend.parse.as_of`); None: now."""


def read_search(tree: Any, limits: RequestLimits = DEFAULT_LIMITS, *, can_embed: bool = False) -> SearchBody:
    """The search request in a JSON tree. With `can_embed` a `$knn` may search for a text. Raises LimitExceeded,
    WrongShape, and MalformedBody for the two mistakes that are 400 all the same (docs/wire.md, section 2).
    """
    body = shaped(tree, _Body)
    if type(body.read_level) is not str:
        raise MalformedBody("Failed to parse the request body as JSON: read_level must be a string")
    read_level = shaped(body.read_level, ReadLevel)
    check_filters({f"searches[{index}].filter": each.filter for index, each in enumerate(body.searches)}, limits)
    searches = tuple(_read_payload(f"searches[{index}]", payload) for index, payload in enumerate(body.searches))
    for index, payload in enumerate(searches):
        if payload.texts and not can_embed:
            raise text_refused(index)
    return SearchBody(searches, read_level, body.as_of)


def text_refused(index: int) -> WrongShape:
    """The 422 of a `$knn` that searches for a text where texts are not embedded. `index` is the search's."""
    return wrong_shape(f"searches[{index}].rank: $knn: expected a vector")


def _read_payload(place: str, payload: _Payload) -> SearchPayload:
    with inside(f"{place}.filter"):
        where = None if payload.filter is None or payload.filter == {} else _read_filter(payload.filter)
    with inside(f"{place}.rank"):
        rank = None if payload.rank is None else read_rank(payload.rank)
    with inside(f"{place}.group_by"):
        aggregate = _read_aggregate(payload.group_by.aggregate)
    return SearchPayload(
        where=where,
        rank=rank,
        group_keys=tuple(payload.group_by.keys),
        aggregate=aggregate,
        offset=payload.limit.offset,
        limit=payload.limit.limit,
        select=frozenset(payload.select.keys),
        order_by=payload.order_by,
        facets=None if payload.facets is None else Facets(payload.facets.keys, payload.facets.limit),
        count=payload.count,
    )


def _read_filter(clause: Any) -> Where:
    try:
        return parse_where(clause)
    except InvalidArgument as error:
        raise wrong_shape(error.message) from None


def _read_aggregate(given: Mapping[str, _Aggregate] | None) -> tuple[str, _Aggregate] | None:
    if given is None:
        return None
    if len(given) != 1 or not given.keys() <= {"$min_k", "$max_k"}:
        raise wrong_shape("expected one aggregate, `$min_k` or `$max_k`")
    return next(iter(given.items()))


def check_search(searches: Sequence[SearchPayload], limits: RequestLimits = DEFAULT_LIMITS) -> None:
    """Checks the limits of a request; then the rules for single fields, in all searches; then those for a search as a
    whole. Raises LimitExceeded, InvalidArgument.
    """
    check_limit("searches", len(searches), limits.searches_max, "searches")
    refuse_fields({"searches": _size_problem(searches)})
    _check_facets(searches, limits)
    refuse_fields(
        {
            f"searches[{index}].{field}": problem
            for index, payload in enumerate(searches)
            for field, problem in (
                ("rank", _rank_problem(payload)),
                ("group_by", _group_problem(payload)),
                ("order_by", _field_problem("order_by", [step.key for step in payload.order_by])),
                ("facets", _field_problem("facets", payload.facets.keys if payload.facets else ())),
            )
        }
    )
    refuse_fields(
        {
            f"searches[{index}].__all__": "group_by requires rank expression to be specified"
            for index, payload in enumerate(searches)
            if payload.aggregate is not None and payload.rank is None
        }
    )


def _size_problem(searches: Sequence[SearchPayload]) -> str | None:
    ranks = [payload.rank for payload in searches if payload.rank is not None]
    if sum(len(rank.knns) for rank in ranks) > KNNS_MAX:
        return f"a request has at most {KNNS_MAX} $knn"
    if sum(rank.nodes for rank in ranks) > NODES_MAX:
        return f"the rank expressions of a request have at most {NODES_MAX} operators"
    if sum(len(payload.order_by) for payload in searches) > SORT_KEYS_MAX:
        return f"the searches of a request sort by at most {SORT_KEYS_MAX} keys"
    return None


def _check_facets(searches: Sequence[SearchPayload], limits: RequestLimits) -> None:
    """Raises LimitExceeded for too many facets in all searches."""
    facets = [payload.facets for payload in searches if payload.facets is not None]
    keys = sum(len(each.keys) for each in facets) + sum(len(payload.group_keys) for payload in searches)
    check_limit("keys of facets and groups", keys, limits.facets_max, "searches")


def _rank_problem(payload: SearchPayload) -> str | None:
    for knn in payload.knns:
        problem = knn.query.problem() if isinstance(knn.query, SparseVector) else None
        if problem is not None:
            return f"Invalid sparse vector in KNN query: {problem}"
    return None


def _group_problem(payload: SearchPayload) -> str | None:
    keys = payload.group_keys
    if bool(keys) != (payload.aggregate is not None):
        return "group_by keys and aggregate must both be specified or both be omitted"
    if payload.aggregate is None:
        return None
    _, aggregate = payload.aggregate
    if any(key.startswith("#") for key in keys):
        return "group_by keys must be metadata fields (cannot use #score, #document, #embedding, or #metadata)"
    if not aggregate.keys:
        return "aggregate keys must not be empty"
    if max(len(keys), len(aggregate.keys)) > FIELDS_MAX:
        return f"group_by has at most {FIELDS_MAX} keys"
    if aggregate.k == 0:
        return "aggregate k must be greater than 0"
    if any(key.startswith("#") and key != SCORE for key in aggregate.keys):
        return "aggregate keys must be metadata fields or #score (cannot use #document, #embedding, or #metadata)"
    return None


def _field_problem(what: str, keys: Sequence[str]) -> str | None:
    if len(keys) > FIELDS_MAX:
        return f"{what} has at most {FIELDS_MAX} keys"
    if any(not key or key[0] in "#$" or key.startswith(HIDDEN_METADATA_PREFIX) for key in keys):
        return f"{what} keys must be metadata fields"
    return None
