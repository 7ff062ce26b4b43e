"""Parsing `where` and `where_document` of a request into the nodes of `shared.records.where`.

The forms are in docs/wire.md, section 14. A clause of any other form is refused with one of two fixed messages, whose
status differs by route: get, query and delete answer 400, search (where a filter is part of the shape) 422.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from shared.errors import InvalidArgument
from shared.records.regex import compile_regex
from shared.records.where import (
    All,
    AnyOf,
    ArrayContains,
    Compare,
    DocumentContains,
    DocumentRegex,
    IdIn,
    MetadataCompare,
    MetadataIn,
    Scalar,
    Where,
)

NESTING_MAX: Final = 64
"""Most levels of `$and` and `$or`; Chroma's own JSON parser gives up at the same depth."""

I64_MAX: Final = 2**63 - 1

_DOCUMENT: Final = "#document"
_ID: Final = "#id"
_ORDERED: Final = {op.value: op for op in (Compare.GT, Compare.GTE, Compare.LT, Compare.LTE)}
_EQUAL: Final = {op.value: op for op in (Compare.EQ, Compare.NE)}
_JOINS: Final[dict[str, type[All] | type[AnyOf]]] = {"$and": All, "$or": AnyOf}
_TEXT_OPERATORS: Final = frozenset({"$contains", "$not_contains", "$regex", "$not_regex"})
_SCALARS: Final = frozenset({str, bool, int, float})


class WhereError(InvalidArgument):
    """The clause has no form that a filter can have."""


def parse_filters(where: Any, where_document: Any) -> Where | None:
    """Both filters of a request as one node; None when both are null. Raises InvalidArgument."""
    clauses = [
        clause
        for clause in (
            None if where is None else parse_where(where),
            None if where_document is None else parse_where_document(where_document),
        )
        if clause is not None
    ]
    if not clauses:
        return None
    return clauses[0] if len(clauses) == 1 else All(clauses)


def parse_where(clause: Any, depth: int = 0) -> Where:
    """The node for a `where` object at a depth of nesting. Raises InvalidArgument."""
    key, operand = _only_member(clause, _bad_where)
    if key in _JOINS:
        return _JOINS[key](_clauses(operand, parse_where, depth, _bad_where))
    if key.startswith("$"):
        raise _bad_where()
    if key == _DOCUMENT and isinstance(operand, dict):
        node = _document_operator(*_only_member(operand, _bad_where), _bad_where)
        if node is not None:
            return node
    if key == _ID:
        return _id_clause(operand)
    if isinstance(operand, dict):
        return _metadata_clause(key, *_only_member(operand, _bad_where))
    return MetadataCompare(key, Compare.EQ, _scalar(operand))


def parse_where_document(clause: Any, depth: int = 0) -> Where:
    """The node for a `where_document` object at a depth of nesting. Raises InvalidArgument."""
    key, operand = _only_member(clause, _bad_where_document)
    if key in _JOINS:
        return _JOINS[key](_clauses(operand, parse_where_document, depth, _bad_where_document))
    node = _document_operator(key, operand, _bad_where_document)
    if node is None:
        raise _bad_where_document()
    return node


def _metadata_clause(key: str, operator: str, operand: Any) -> Where:
    if operator in _EQUAL:
        return MetadataCompare(key, _EQUAL[operator], _scalar(operand))
    if operator in _ORDERED:
        value = _scalar(operand)
        if type(value) is not int and type(value) is not float:
            raise _bad_where()
        return MetadataCompare(key, _ORDERED[operator], value)
    if operator in ("$in", "$nin"):
        return MetadataIn(key, _members(operand), negated=operator == "$nin")
    if operator in ("$contains", "$not_contains"):
        return ArrayContains(key, _scalar(operand), negated=operator == "$not_contains")
    raise _bad_where()


def _document_operator(operator: str, operand: Any, bad: Callable[[], WhereError]) -> Where | None:
    """The node for a text operator, None when it is another operator."""
    if operator not in _TEXT_OPERATORS:
        return None
    if not isinstance(operand, str):
        raise bad()
    if operator in ("$contains", "$not_contains"):
        return DocumentContains(operand, negated=operator == "$not_contains")
    compile_regex(operand)
    return DocumentRegex(operand, negated=operator == "$not_regex")


def _id_clause(operand: Any) -> Where:
    operator, operand = _only_member(operand, _bad_where) if isinstance(operand, dict) else ("$eq", operand)
    if operator in ("$eq", "$ne") and isinstance(operand, str):
        return IdIn([operand], negated=operator == "$ne")
    if operator in ("$in", "$nin") and isinstance(operand, list) and operand and set(map(type, operand)) == {str}:
        return IdIn(operand, negated=operator == "$nin")
    raise _bad_where()


def _clauses(
    operand: Any, parse: Callable[[Any, int], Where], depth: int, bad: Callable[[], WhereError]
) -> list[Where]:
    if not isinstance(operand, list) or depth >= NESTING_MAX:
        raise bad()
    return [parse(clause, depth + 1) for clause in operand]


def _only_member(clause: Any, bad: Callable[[], WhereError]) -> tuple[str, Any]:
    if not isinstance(clause, dict) or len(clause) != 1:
        raise bad()
    member: tuple[str, Any] = next(iter(clause.items()))
    return member


def _scalar(value: Any) -> Scalar:
    if type(value) not in _SCALARS or (type(value) is int and value > I64_MAX):
        raise _bad_where()
    scalar: Scalar = value
    return scalar


def _members(values: Any) -> list[Scalar]:
    """The operands of `$in` and `$nin`, all of one type. Integers behind a float become floats. Raises WhereError."""
    if not isinstance(values, list) or not values:
        raise _bad_where()
    types = set(map(type, values))
    if type(values[0]) is float and types == {float, int}:
        return [float(value) for value in values]
    if len(types) != 1 or not types <= _SCALARS or (types == {int} and max(values) > I64_MAX):
        raise _bad_where()
    return values


def _bad_where() -> WhereError:
    return WhereError("Invalid where clause")


def _bad_where_document() -> WhereError:
    return WhereError("Invalid where document clause")
