"""Rank expressions: what a search orders records by (docs/wire.md, section 15).

An expression is a tree of operators over numbers and nearest-neighbour searches. What the latter look for stands beside
the tree (`shared.search.model.Search.knns`); here they are their place in that list.
"""

from __future__ import annotations

import enum

import msgspec


class Operator(enum.StrEnum):
    """By how many operands they take: any number, a left and a right one, one."""

    SUM = "$sum"
    MUL = "$mul"
    MAX = "$max"
    MIN = "$min"

    SUB = "$sub"
    DIV = "$div"

    ABS = "$abs"
    EXP = "$exp"
    LOG = "$log"


class _Node(msgspec.Struct, frozen=True, tag_field="t"):
    pass


class Constant(_Node, frozen=True, tag="val"):
    """`$val`."""

    value: float


class KnnValue(_Node, frozen=True, tag="knn"):
    """`$knn`: distances of what was found at `place`, or positions in it; `default` for all other records."""

    place: int
    default: float | None = None
    return_rank: bool = False


class Combination(_Node, frozen=True, tag="op"):
    """An operator with its operands."""

    operator: Operator
    operands: list[Expression]


Expression = Constant | KnnValue | Combination


def node_count(expression: Expression) -> int:
    """Operators, constants and searches, all together."""
    operands = expression.operands if isinstance(expression, Combination) else ()
    return 1 + sum(map(node_count, operands))
