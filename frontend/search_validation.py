"""The body of a search, checked whole (wire contract, section 15).

`read_search` checks the shape before the collection is looked up; filters are part of the shape here, so a bad one is
422. `check_search` checks the rules after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from frontend.body import DEPTH_MAX, shaped, wrong_shape
from frontend.embeddings import read_embeddings
from frontend.sparse import SparseVector, read_sparse
from frontend.where_parser import parse_where
from frontend.write_validation import refuse_fields
from shared.errors import InvalidArgument, MalformedBody
from shared.limits import U32_MAX
from shared.model import ReadLevel
from shared.where import Where

U32 = Annotated[int, msgspec.Meta(ge=0, le=U32_MAX)]

SCORE: Final = "#score"
EMBEDDING: Final = "#embedding"


class Knn(msgspec.Struct, frozen=True):
    """A nearest-neighbour operator. `query` is a dense vector as given, or a sparse one."""

    query: list[float] | SparseVector
    key: str


class _KnnBody(msgspec.Struct):
    query: Any
    key: str = EMBEDDING
    limit: U32 = 16
    default: float | None = None
    return_rank: bool = False


class _Limit(msgspec.Struct):
    offset: U32 = 0
    limit: U32 | None = None


class _Select(msgspec.Struct):
    keys: list[str] = []


class Aggregate(msgspec.Struct, frozen=True):
    """Each group keeps its `k` best by `keys` in turn."""

    keys: list[str]
    k: U32


class _GroupBy(msgspec.Struct):
    keys: list[str] = []
    aggregate: dict[str, Aggregate] | None = None


class _Payload(msgspec.Struct):
    filter: Any = None
    rank: Any = None
    group_by: _GroupBy = msgspec.field(default_factory=_GroupBy)
    limit: _Limit = msgspec.field(default_factory=_Limit)
    select: _Select = msgspec.field(default_factory=_Select)


class _Body(msgspec.Struct):
    searches: list[_Payload]
    read_level: Any = ReadLevel.INDEX_AND_WAL.value


class SearchPayload(msgspec.Struct, frozen=True):
    """One search of a request. `knn` are the nearest-neighbour operators of the rank expression, in order."""

    where: Where | None
    ranked: bool
    knn: tuple[Knn, ...]
    group_keys: tuple[str, ...]
    aggregate: Aggregate | None


def read_search(tree: Any) -> tuple[SearchPayload, ...]:
    """Raises WrongShape, and MalformedBody for the two slips that the contract answers with 400."""
    body = shaped(tree, _Body)
    if type(body.read_level) is not str:
        raise _malformed("read_level must be a string")
    shaped(body.read_level, ReadLevel)
    return tuple(map(_read_payload, body.searches))


def _read_payload(payload: _Payload) -> SearchPayload:
    return SearchPayload(
        where=None if payload.filter is None or payload.filter == {} else _read_filter(payload.filter),
        ranked=payload.rank is not None,
        knn=() if payload.rank is None else tuple(_read_rank(payload.rank, 0)),
        group_keys=tuple(payload.group_by.keys),
        aggregate=_read_aggregate(payload.group_by.aggregate),
    )


def _read_filter(clause: Any) -> Where:
    try:
        return parse_where(clause)
    except InvalidArgument as error:
        raise wrong_shape(f"filter: {error.message}") from None


def _read_aggregate(given: Mapping[str, Aggregate] | None) -> Aggregate | None:
    if given is None:
        return None
    if len(given) != 1 or not given.keys() <= {"$min_k", "$max_k"}:
        raise wrong_shape("group_by: expected one aggregate, `$min_k` or `$max_k`")
    return next(iter(given.values()))


def _read_rank(expression: Any, depth: int) -> Iterator[Knn]:
    """Check an expression; yields its nearest-neighbour operators."""
    if type(expression) is str:
        raise wrong_shape(f"rank: unknown operator `{expression}`")
    if type(expression) is not dict or len(expression) != 1 or depth > DEPTH_MAX:
        raise _malformed("a rank expression must be an object with exactly one operator")
    operator, operand = next(iter(expression.items()))
    if operator == "$val":
        shaped(operand, float)
    elif operator == "$knn":
        yield _read_knn(operand)
    elif operator in _OPERANDS:
        for child in _OPERANDS[operator](operand):
            yield from _read_rank(child, depth + 1)
    else:
        raise wrong_shape(f"rank: unknown operator `{operator}`")


def _many(operand: Any) -> Sequence[Any]:
    if type(operand) is not list:
        raise wrong_shape("rank: expected a list of expressions")
    return operand


def _pair(operand: Any) -> Sequence[Any]:
    if type(operand) is dict and "left" in operand and "right" in operand:
        return operand["left"], operand["right"]
    if type(operand) is list and len(operand) == 2:
        return operand
    raise wrong_shape("rank: expected `left` and `right`")


def _one(operand: Any) -> Sequence[Any]:
    return (operand,)


_OPERANDS: Final[Mapping[str, Callable[[Any], Sequence[Any]]]] = {
    "$sum": _many,
    "$mul": _many,
    "$max": _many,
    "$min": _many,
    "$sub": _pair,
    "$div": _pair,
    "$abs": _one,
    "$exp": _one,
    "$log": _one,
}


def _read_knn(operand: Any) -> Knn:
    body = shaped(operand, _KnnBody)
    if type(body.query) is dict:
        return Knn(read_sparse(body.query), body.key)
    read_embeddings([body.query], encoded_allowed=False)
    return Knn(body.query, body.key)


def check_search(searches: Sequence[SearchPayload]) -> None:
    """The rules for single fields, of all payloads; then those for a payload as a whole. Raises InvalidArgument."""
    refuse_fields(
        {
            f"searches[{index}].{field}": problem
            for index, payload in enumerate(searches)
            for field, problem in (("rank", _rank_problem(payload)), ("group_by", _group_problem(payload)))
        }
    )
    refuse_fields(
        {
            f"searches[{index}].__all__": "group_by requires rank expression to be specified"
            for index, payload in enumerate(searches)
            if payload.aggregate is not None and not payload.ranked
        }
    )


def _rank_problem(payload: SearchPayload) -> str | None:
    for knn in payload.knn:
        problem = knn.query.problem() if isinstance(knn.query, SparseVector) else None
        if problem is not None:
            return f"Invalid sparse vector in KNN query: {problem}"
    return None


def _group_problem(payload: SearchPayload) -> str | None:
    keys, aggregate = payload.group_keys, payload.aggregate
    if bool(keys) != (aggregate is not None):
        return "group_by keys and aggregate must both be specified or both be omitted"
    if aggregate is None:
        return None
    if any(key.startswith("#") for key in keys):
        return "group_by keys must be metadata fields (cannot use #score, #document, #embedding, or #metadata)"
    if not aggregate.keys:
        return "aggregate keys must not be empty"
    if aggregate.k == 0:
        return "aggregate k must be greater than 0"
    if any(key.startswith("#") and key != SCORE for key in aggregate.keys):
        return "aggregate keys must be metadata fields or #score (cannot use #document, #embedding, or #metadata)"
    return None


def _malformed(reason: str) -> MalformedBody:
    return MalformedBody(f"Failed to parse the request body as JSON: {reason}")
