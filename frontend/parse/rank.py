"""Parsing the rank expressions of a search request (docs/wire.md, section 15)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from frontend.parse.embeddings import read_embeddings
from frontend.parse.shapes import inside, shaped, wrong_shape
from frontend.parse.sliced_json import DEPTH_MAX
from frontend.parse.sparse import SparseVector, read_sparse
from shared.errors import MalformedBody
from shared.limits import U32_MAX
from shared.search.expression import Combination, Constant, Expression, KnnValue, Operator, node_count
from shared.search.model import EMBEDDING

U32 = Annotated[int, msgspec.Meta(ge=0, le=U32_MAX)]


@dataclass(frozen=True, slots=True)
class GivenKnn:
    """A `$knn` as it was sent: `query` is a dense vector, a sparse one, or a text that is still to be embedded.

    `max_distance` is an extension of ours: records further away are no neighbours.
    """

    query: list[float] | SparseVector | str
    key: str
    limit: int
    max_distance: float | None


@dataclass(frozen=True, slots=True)
class GivenRank:
    """An expression and the `$knn`s in it, which it refers to by their place in `knns`. `nodes` counts its operators,
    `$val` and `$knn` included.
    """

    expression: Expression
    knns: tuple[GivenKnn, ...]
    nodes: int


class _KnnBody(msgspec.Struct):
    query: Any
    key: str = EMBEDDING
    limit: U32 = 16
    default: float | None = None
    return_rank: bool = False
    max_distance: float | None = None


def read_rank(tree: Any) -> GivenRank:
    """The expression in a JSON tree. Raises WrongShape, and MalformedBody for an expression that is not an object with
    exactly one operator.
    """
    knns: list[GivenKnn] = []
    expression = _read(tree, 0, knns)
    return GivenRank(expression, tuple(knns), node_count(expression))


def _read(tree: Any, depth: int, knns: list[GivenKnn]) -> Expression:
    if type(tree) is str:
        raise wrong_shape(f"unknown operator `{tree}`")
    if type(tree) is not dict or len(tree) != 1 or depth > DEPTH_MAX:
        raise MalformedBody(
            "Failed to parse the request body as JSON: a rank expression must be an object with exactly one operator"
        )
    name, operand = next(iter(tree.items()))
    if name == "$val":
        return Constant(shaped(operand, float))
    if name == "$knn":
        return _read_knn(operand, knns)
    read_operands = _OPERANDS.get(name)
    if read_operands is None:
        raise wrong_shape(f"unknown operator `{name}`")
    return Combination(Operator(name), [_read(child, depth + 1, knns) for child in read_operands(operand)])


def _read_knn(operand: Any, knns: list[GivenKnn]) -> KnnValue:
    with inside("$knn"):
        body = shaped(operand, _KnnBody)
        query = body.query
        if type(query) is dict:
            query = read_sparse(query)
        elif type(query) is not str:
            read_embeddings([query], encoded_allowed=False)
    knns.append(GivenKnn(query, body.key, body.limit, body.max_distance))
    return KnnValue(len(knns) - 1, body.default, body.return_rank)


def _list_of_operands(operand: Any) -> Sequence[Any]:
    if type(operand) is not list:
        raise wrong_shape("expected a list of expressions")
    return operand


def _left_and_right(operand: Any) -> Sequence[Any]:
    if type(operand) is dict and "left" in operand and "right" in operand:
        return operand["left"], operand["right"]
    if type(operand) is list and len(operand) == 2:
        return operand
    raise wrong_shape("expected `left` and `right`")


def _single_operand(operand: Any) -> Sequence[Any]:
    return (operand,)


_OPERANDS: Final[Mapping[str, Callable[[Any], Sequence[Any]]]] = {
    **dict.fromkeys(("$sum", "$mul", "$max", "$min"), _list_of_operands),
    **dict.fromkeys(("$sub", "$div"), _left_and_right),
    **dict.fromkeys(("$abs", "$exp", "$log"), _single_operand),
}
