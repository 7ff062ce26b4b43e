"""Rank expressions: what a search orders records by (wire contract, section 15), parsed.

An expression is a tree of operators over numbers and nearest-neighbour searches. `frontend.ranking` evaluates it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from frontend.body import DEPTH_MAX, shaped, wrong_shape
from frontend.embeddings import read_embeddings
from frontend.sparse import SparseVector, read_sparse
from shared.errors import MalformedBody
from shared.limits import U32_MAX

U32 = Annotated[int, msgspec.Meta(ge=0, le=U32_MAX)]

EMBEDDING: Final = "#embedding"


class Fold(enum.StrEnum):
    """Operators of any number of operands."""

    SUM = "$sum"
    MUL = "$mul"
    MAX = "$max"
    MIN = "$min"


class Pair(enum.StrEnum):
    """Operators of a left and a right operand."""

    SUB = "$sub"
    DIV = "$div"


class Unary(enum.StrEnum):
    """Operators of one operand."""

    ABS = "$abs"
    EXP = "$exp"
    LOG = "$log"


@dataclass(frozen=True, slots=True)
class Constant:
    """`$val`."""

    value: float


@dataclass(frozen=True, slots=True)
class Knn:
    """`$knn`. `query` is a dense vector as given, or a sparse one; its place among those of its expression is `place`.

    `max_distance` is an extension of ours: records further away are no neighbours.
    """

    place: int
    query: list[float] | SparseVector
    key: str
    limit: int
    default: float | None
    return_rank: bool
    max_distance: float | None


@dataclass(frozen=True, slots=True)
class Combination:
    """An operator with its operands."""

    operator: Fold | Pair | Unary
    operands: tuple[Expression, ...]


Expression = Constant | Knn | Combination


@dataclass(frozen=True, slots=True)
class Rank:
    """A whole expression; `knns[i].place` is `i`."""

    expression: Expression
    knns: tuple[Knn, ...]


class _KnnBody(msgspec.Struct):
    query: Any
    key: str = EMBEDDING
    limit: U32 = 16
    default: float | None = None
    return_rank: bool = False
    max_distance: float | None = None


def read_rank(tree: Any) -> Rank:
    """Raises WrongShape, and MalformedBody for what is not an object with exactly one operator."""
    knns: list[Knn] = []
    expression = _read(tree, 0, knns)
    return Rank(expression, tuple(knns))


def _read(tree: Any, depth: int, knns: list[Knn]) -> Expression:
    if type(tree) is str:
        raise wrong_shape(f"rank: unknown operator `{tree}`")
    if type(tree) is not dict or len(tree) != 1 or depth > DEPTH_MAX:
        raise MalformedBody(
            "Failed to parse the request body as JSON: a rank expression must be an object with exactly one operator"
        )
    name, operand = next(iter(tree.items()))
    if name == "$val":
        return Constant(shaped(operand, float))
    if name == "$knn":
        knns.append(_read_knn(operand, len(knns)))
        return knns[-1]
    operator = _OPERATORS.get(name)
    if operator is None:
        raise wrong_shape(f"rank: unknown operator `{name}`")
    children = _OPERANDS[type(operator)](operand)
    return Combination(operator, tuple([_read(child, depth + 1, knns) for child in children]))


def _read_knn(operand: Any, place: int) -> Knn:
    body = shaped(operand, _KnnBody)
    query = body.query
    if type(query) is dict:
        query = read_sparse(query)
    else:
        read_embeddings([query], encoded_allowed=False)
    return Knn(place, query, body.key, body.limit, body.default, body.return_rank, body.max_distance)


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


_OPERATORS: Final[Mapping[str, Fold | Pair | Unary]] = {
    operator.value: operator for operators in (Fold, Pair, Unary) for operator in operators
}
_OPERANDS: Final[Mapping[type, Callable[[Any], Sequence[Any]]]] = {Fold: _many, Pair: _pair, Unary: _one}
