"""An order over metadata values of all types, for groups and for sorting. Pure.

    missing < booleans < integers < floats < strings < arrays < sparse vectors

Values of one type compare as usual, strings by code points; arrays element by element. Equal keys mean equal values of
one type: 1 and 1.0 are two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

_TYPES: Final[dict[type, int]] = {bool: 1, int: 2, float: 3, str: 4}
_ARRAY: Final = 5
_OBJECT: Final = 6

Key = tuple[Any, ...]
"""The key that a value is sorted and grouped by."""

MISSING: Final[Key] = (0,)


def value_key(value: object) -> Key:
    """The key of a metadata value; None stands for a missing value."""
    if value is None:
        return MISSING
    kind = _TYPES.get(type(value))
    if kind is not None:
        return (kind, value)
    if isinstance(value, list):
        return (_ARRAY, *map(value_key, value))
    assert isinstance(value, dict)
    return (_OBJECT, tuple(value["indices"]), tuple(value["values"]))


def score_key(score: float) -> Key:
    """The key of a score: NaN sorts behind everything."""
    return (math.isnan(score), 0.0 if math.isnan(score) else score)


def values_key(metadata: Mapping[str, Any], keys: Sequence[str]) -> Key:
    """The key of a record's values at several metadata keys."""
    return tuple([value_key(metadata.get(key)) for key in keys])
