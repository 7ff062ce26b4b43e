"""The meaning of a filter for one record at a time, written down from docs/wire.md, section 14, alone."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    Where,
)


class Row(NamedTuple):
    id: str
    document: str | None
    metadata: dict[str, Any] | None


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(stored: object, wanted: object) -> bool:
    """Numbers by value (Python compares int and float exactly), other types with their own only, arrays never."""
    if _number(stored) and _number(wanted):
        return stored == wanted
    return type(stored) is type(wanted) and stored == wanted


def _compare(stored: Any, op: Compare, wanted: Any) -> bool:
    if op is Compare.EQ:
        return _equal(stored, wanted)
    if not _number(stored):
        return False
    results = {Compare.GT: stored > wanted, Compare.GTE: stored >= wanted}
    results |= {Compare.LT: stored < wanted, Compare.LTE: stored <= wanted}
    return bool(results[op])


def matches(where: Where, row: Row) -> bool:
    metadata = row.metadata or {}
    match where:
        case All(clauses):
            return all(matches(clause, row) for clause in clauses)
        case AnyOf(clauses):
            return any(matches(clause, row) for clause in clauses)
        case MetadataCompare(key, Compare.NE, value):
            return not _equal(metadata.get(key), value)
        case MetadataCompare(key, op, value):
            return _compare(metadata.get(key), op, value)
        case MetadataIn(key, values, negated):
            return any(_equal(metadata.get(key), value) for value in values) != negated
        case ArrayContains(key, value, negated):
            stored = metadata.get(key)
            found = isinstance(stored, list) and any(type(e) is type(value) and e == value for e in stored)
            return found != negated
        case DocumentContains(text, negated):
            return (row.document is not None and text in row.document) != negated
        case DocumentRegex(pattern, negated):
            return (row.document is not None and compile_regex(pattern).matches(row.document)) != negated
        case IdIn(ids, negated):
            return (row.id in ids) != negated
    raise AssertionError(where)
