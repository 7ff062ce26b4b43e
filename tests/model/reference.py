"""What a collection must answer (docs/wire.md, sections 12 to 14), in plain dicts, without how a server does it.

A record's place in its collection's dict is its place in the order of `get`: an update keeps it, a delete and
a new add moves it to the end.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Where = dict[str, Any]
Vector = tuple[float, ...]


@dataclass
class Record:
    embedding: Vector
    document: str | None = None
    uri: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def merge(self, row: "Row") -> None:
        self.embedding = self.embedding if row.embedding is None else row.embedding
        self.document = self.document if row.document is None else row.document
        self.uri = self.uri if row.uri is None else row.uri
        for key, value in (row.metadata or {}).items():
            if value is None or value == []:
                self.metadata.pop(key, None)
            else:
                self.metadata[key] = stored_value(value)

    @property
    def shown_metadata(self) -> dict[str, Any] | None:
        shown = {key: value for key, value in self.metadata.items() if not key.startswith("chroma:")}
        return shown if shown or self.metadata or self.uri is not None else None


@dataclass(frozen=True)
class Row:
    """One row of a write."""

    id: str
    embedding: Vector | None
    document: str | None
    uri: str | None
    metadata: dict[str, Any] | None


def stored_value(value: Any) -> Any:
    """A list that mixes integers with floats is stored as floats."""
    if isinstance(value, list) and any(isinstance(item, float) for item in value):
        return [float(item) for item in value]
    return value


@dataclass
class Collection:
    id: str
    name: str
    space: str
    metadata: dict[str, Any] | None
    dimension: int | None = None
    operations: int = 0
    """Operations that the server must have given a position: a lower bound of its head."""
    records: dict[str, Record] = field(default_factory=dict)

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.id not in self.records:
                self._insert(row)
        self._wrote(rows)

    def upsert(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.id in self.records:
                self.records[row.id].merge(row)
            else:
                self._insert(row)
        self._wrote(rows)

    def update(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.id in self.records:
                self.records[row.id].merge(row)
        self._wrote(rows)

    def delete(self, ids: Iterable[str]) -> None:
        doomed = set(ids)
        for record_id in doomed:
            self.records.pop(record_id, None)
        self.operations += len(doomed)

    def matching(self, ids: Sequence[str] | None, where: Where | None, document: Where | None) -> list[str]:
        """Ids in the order of `get`."""
        return [
            record_id
            for record_id, record in self.records.items()
            if (ids is None or record_id in ids)
            and (where is None or matches(where, record_id, record))
            and (document is None or matches_document(document, record.document))
        ]

    def _insert(self, row: Row) -> None:
        assert row.embedding is not None
        record = self.records[row.id] = Record(row.embedding)
        record.merge(row)

    def _wrote(self, rows: Sequence[Row]) -> None:
        self.operations += len(rows)
        for row in rows:
            if row.embedding is not None and self.dimension is None:
                self.dimension = len(row.embedding)


def distance(space: str, left: Vector, right: Vector) -> float:
    dot = math.fsum(a * b for a, b in zip(left, right, strict=True))
    if space == "l2":
        return math.fsum((a - b) ** 2 for a, b in zip(left, right, strict=True))
    if space == "ip":
        return 1.0 - dot
    norms = math.sqrt(math.fsum(a * a for a in left)) * math.sqrt(math.fsum(b * b for b in right))
    return 1.0 if norms == 0.0 else 1.0 - dot / norms


def matches(where: Where, record_id: str, record: Record) -> bool:
    ((key, operand),) = where.items()
    if key == "$and":
        return all(matches(part, record_id, record) for part in operand)
    if key == "$or":
        return any(matches(part, record_id, record) for part in operand)
    if key == "#document":
        return matches_document(operand, record.document)
    value = record_id if key == "#id" else record.metadata.get(key)
    if not isinstance(operand, dict):
        return same(value, operand)
    ((operator, wanted),) = operand.items()
    return compare(operator, value, wanted)


def compare(operator: str, value: Any, wanted: Any) -> bool:
    match operator:
        case "$eq":
            return same(value, wanted)
        case "$in":
            return any(same(value, one) for one in wanted)
        case "$contains":
            return isinstance(value, list) and any(type(item) is type(wanted) and item == wanted for item in value)
        case "$ne":
            return not compare("$eq", value, wanted)
        case "$nin":
            return not compare("$in", value, wanted)
        case "$not_contains":
            return not compare("$contains", value, wanted)
    if not is_number(value):
        return False
    below, equal = value < wanted, value == wanted
    return bool({"$lt": below, "$lte": below or equal, "$gt": not below and not equal, "$gte": not below}[operator])


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(value: Any, wanted: Any) -> bool:
    """Types do not mix; integers and floats compare by value."""
    if is_number(value) and is_number(wanted):
        return bool(value == wanted)
    return type(value) is type(wanted) and bool(value == wanted)


def matches_document(where: Where, document: str | None) -> bool:
    ((operator, wanted),) = where.items()
    match operator:
        case "$and":
            return all(matches_document(part, document) for part in wanted)
        case "$or":
            return any(matches_document(part, document) for part in wanted)
        case "$contains":
            return document is not None and wanted in document
        case "$regex":
            return document is not None and re.search(wanted, document) is not None
        case "$not_contains":
            return not matches_document({"$contains": wanted}, document)
        case "$not_regex":
            return not matches_document({"$regex": wanted}, document)
    raise AssertionError(f"unknown operator {operator}")
