"""The syntax tree of a filter, as it travels from the frontend to the query workers.

The frontend parses `where` and `where_document` into these nodes and joins them by `All`; a query worker evaluates them
to a mask per segment and per block of the tail. Values keep their JSON type: `True` is a boolean, `1` an integer, `1.0`
a float. Meaning, operator by operator, is in docs/wire.md, section 14.
"""

from __future__ import annotations

import enum

import msgspec

Scalar = str | bool | int | float


class Compare(enum.StrEnum):
    """Comparison of a scalar metadata value with one operand."""

    EQ = "$eq"
    NE = "$ne"
    GT = "$gt"
    GTE = "$gte"
    LT = "$lt"
    LTE = "$lte"


class _Node(msgspec.Struct, frozen=True, tag_field="t", array_like=False):
    pass


class MetadataCompare(_Node, frozen=True, tag="cmp"):
    """`{"k": {"$gt": v}}`. `NE` matches every record that `EQ` does not."""

    key: str
    op: Compare
    value: Scalar


class MetadataIn(_Node, frozen=True, tag="in"):
    """`{"k": {"$in": [..]}}`; negated for `$nin` (everything that `$in` does not match)."""

    key: str
    values: list[Scalar]
    negated: bool = False


class ArrayContains(_Node, frozen=True, tag="has"):
    """`{"k": {"$contains": v}}`: `v` is an element of the array at `k`, type-strict."""

    key: str
    value: Scalar
    negated: bool = False


class DocumentContains(_Node, frozen=True, tag="doc"):
    """The document has `text` as a literal substring; negated also matches records without a document."""

    text: str
    negated: bool = False


class DocumentRegex(_Node, frozen=True, tag="re"):
    """Unanchored search in the syntax of the Rust `regex` crate; negated as in `DocumentContains`."""

    pattern: str
    negated: bool = False


class IdIn(_Node, frozen=True, tag="id"):
    """`{"#id": ..}`: the record's id is one of these."""

    ids: list[str]
    negated: bool = False


class All(_Node, frozen=True, tag="and"):
    """Every clause matches; true when there is none."""

    clauses: list[Where]


class AnyOf(_Node, frozen=True, tag="or"):
    """Some clause matches; false when there is none."""

    clauses: list[Where]


Where = MetadataCompare | MetadataIn | ArrayContains | DocumentContains | DocumentRegex | IdIn | All | AnyOf
