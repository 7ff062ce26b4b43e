"""Rank expressions, which a search orders records by (docs/wire.md, section 15).

An expression is a tree of operators over numbers and nearest-neighbour searches. These stand in a list beside the tree
(`shared.search.model.Search.knns`); a node of the tree says which of them it means.
"""

from __future__ import annotations

import enum

import msgspec


class Operator(enum.StrEnum):
    """The operators: first those of any number of operands, then those of two, then those of one."""

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
    """`$val`: a number."""

    value: float


class KnnValue(_Node, frozen=True, tag="knn"):
    """`$knn`: the value of a record is its distance in the result of the search `knns[place]`, or its rank there from 0
    on; the value of all other records is `default`, None for no value.
    """

    place: int
    default: float | None = None
    return_rank: bool = False


class Combination(_Node, frozen=True, tag="op"):
    """An operator with its operands."""

    operator: Operator
    operands: list[Expression]


Expression = Constant | KnnValue | Combination


def node_count(expression: Expression) -> int:
    """The number of nodes in the tree: operators, constants and searches."""
    operands = expression.operands if isinstance(expression, Combination) else ()
    return 1 + sum(map(node_count, operands))
