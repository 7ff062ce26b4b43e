"""The metadata of a write, from JSON objects to the canonical text that is stored.

The rules (docs/wire.md, section 11) are about single values, but most batches break none of them and hold nothing
that has to be rewritten. So the pairs (key, type) that occur are collected first, in one pass without Python code per
value; single values are checked only where these pairs make that necessary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import NoneType
from typing import Any, Final

import orjson

from frontend.parse.shapes import wrong_shape
from frontend.parse.sparse import SparseVector, read_sparse
from frontend.parse.text_limits import ROWS_AT_ONCE
from frontend.request_limits import check_limit
from shared.limits import METADATA_PAIRS_MAX
from shared.records.model import HIDDEN_METADATA_PREFIX
from shared.vectors.sparse import TYPE, TYPE_MEMBER, rounded

I64_MAX: Final = 2**63 - 1

KINDS: Final[Mapping[type, str]] = {str: "string", bool: "bool", int: "int", float: "float"}
"""Names of value types as they stand in a collection's schema; an array counts as its elements."""

SPARSE_KIND: Final = "sparse_vector"

_Pairs = set[tuple[str, type]]


@dataclass(frozen=True, slots=True)
class Metadatas:
    """A column of metadata, its shape checked. `rows` hold what will be stored: patches, where null removes a key."""

    rows: list[dict[str, Any] | None]
    pairs: frozenset[tuple[str, type]]

    def problem(self) -> str | None:
        """Why the metadata is refused, by the first row that is; None when all rows are valid."""
        if not any(_reserved(key) for key, _ in self.pairs) and not self._sparse_keys():
            return None
        for index, row in enumerate(self.rows):
            if row and not _row_is_valid(row):
                return f"Invalid metadata at index {index}"
        return None

    def texts(self) -> list[bytes | None]:
        """Canonical JSON text per row, None for a row without members. The values of sparse vectors are spelled as the
        float32 that they are.
        """
        return [orjson.dumps(row, _stored_sparse, orjson.OPT_SERIALIZE_NUMPY) if row else None for row in self.rows]

    def kinds(self) -> frozenset[tuple[str, str]]:
        """The (key, value type) pairs that these rows add to the schema, which does not show hidden keys."""
        return frozenset(
            (key, kind)
            for key, kind in chain(
                ((key, KINDS[value_type]) for key, value_type in self.pairs if value_type in KINDS),
                self._array_kinds(),
                ((key, SPARSE_KIND) for key in self._sparse_keys()),
            )
            if not key.startswith(HIDDEN_METADATA_PREFIX)
        )

    def _sparse_keys(self) -> set[str]:
        return {key for key, value_type in self.pairs if value_type is SparseVector}

    def _array_kinds(self) -> Iterable[tuple[str, str]]:
        keys = {key for key, value_type in self.pairs if value_type is list}
        if not keys:
            return ()
        return {
            (key, KINDS[type(row[key][0])])
            for row in self.rows
            if row
            for key in keys & row.keys()
            if type(row[key]) is list
        }


def read_metadatas(column: Sequence[Any], *, patch: bool, pairs_max: int = METADATA_PAIRS_MAX) -> Metadatas:
    """The column, its shape checked and its values in their stored form. In a `patch` null and `[]` remove a key;
    otherwise null is refused and a key with `[]` is left out. Raises WrongShape, and LimitExceeded for more than
    `pairs_max` different pairs of a key and a type.
    """
    if not set(map(type, column)) <= {dict, NoneType}:
        raise wrong_shape("metadatas: expected objects or null")
    rows = list(column)
    pairs = _pairs_of(rows, pairs_max)
    types = {value_type for _, value_type in pairs}
    if NoneType in types and not patch:
        raise wrong_shape("metadatas: null is not a metadata value")
    if list in types or dict in types or (int in types and _has_large_integers(rows)):
        rows = [_stored(row, patch=patch) if row else row for row in rows]
        pairs = _pairs_of(rows, pairs_max)
    return Metadatas(rows, frozenset(pairs))


def _pairs_of(rows: Sequence[dict[str, Any] | None], pairs_max: int) -> _Pairs:
    given = [row for row in rows if row]
    pairs: _Pairs = set()
    for start in range(0, len(given), ROWS_AT_ONCE):
        some = given[start : start + ROWS_AT_ONCE]
        pairs.update(
            zip(
                chain.from_iterable(some),
                map(type, chain.from_iterable(map(dict.values, some))),
                strict=True,
            )
        )
        check_limit("pairs of a metadata key and a type", len(pairs), pairs_max, "metadatas")
    return pairs


def _has_large_integers(rows: Sequence[dict[str, Any] | None]) -> bool:
    values = chain.from_iterable(row.values() for row in rows if row)
    return any(value > I64_MAX for value in values if type(value) is int)


def _stored(row: dict[str, Any], *, patch: bool) -> dict[str, Any]:
    stored = {key: _stored_value(value) for key, value in row.items()}
    if patch:
        return stored
    return {key: value for key, value in stored.items() if value is not None}


def _stored_value(value: Any) -> Any:
    """The value as it is stored: integers beyond 64 bits and mixed numbers as floats, `[]` as None, objects as sparse
    vectors. Raises WrongShape.
    """
    if type(value) is int and value > I64_MAX:
        return float(value)
    if type(value) is list:
        return _stored_array(value)
    return read_sparse(value) if type(value) is dict else value


def _stored_array(values: list[Any]) -> list[Any] | None:
    if not values:
        return None
    types = set(map(type, values))
    if types == {int, float} or (types == {int} and max(values) > I64_MAX):
        return [float(value) for value in values]
    if len(types) != 1 or not types <= KINDS.keys():
        raise wrong_shape("metadatas: the values of an array must be of one type: string, boolean or number")
    return values


def _stored_sparse(value: Any) -> dict[str, Any]:
    assert isinstance(value, SparseVector)
    return {
        TYPE_MEMBER: TYPE,
        "indices": value.indices,
        "values": rounded(value.values),
        "tokens": value.tokens,
    }


def _row_is_valid(row: dict[str, Any]) -> bool:
    return not any(
        _reserved(key) or (type(value) is SparseVector and value.problem() is not None) for key, value in row.items()
    )


def _reserved(key: str) -> bool:
    return not key or key[0] in "#$"
