"""`order_by`, an extension of ours: records sorted by their metadata. Pure.

    booleans < numbers (by value) < strings (by code points)

Records without such a value at the key come last, whatever the direction; records with equal values keep the order of
insertion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.process import work
from shared.search.model import OrderKey

Sortable = bool | int | float | str | None
"""A value that records are sorted by; None where a record has none."""


def sortable(metadata: Mapping[str, Any], key: str) -> Sortable:
    """The value that a record is sorted by, None where it has none that sorts."""
    value = metadata.get(key)
    return value if isinstance(value, str | int | float) else None


def sorted_indices(order_by: Sequence[OrderKey], rows: Sequence[Sequence[Sortable]]) -> list[int]:
    """Indices of `rows` in order. A row has one value per step of `order_by`; rows are given by insertion."""
    indices = list(range(len(rows)))
    for step in reversed(range(len(order_by))):
        work.check()
        # Each sort is stable, so the first step decides and the last is a tie.
        have = [index for index in indices if rows[index][step] is not None]
        lack = [index for index in indices if rows[index][step] is None]
        have.sort(
            key=lambda index, step=step: _key(rows[index][step]),  # type: ignore[misc] # no type for a lambda with a default
            reverse=order_by[step].direction == "desc",
        )
        indices = have + lack
    return indices


def _key(value: Any) -> tuple[int, Any]:
    return (2 if isinstance(value, str) else 0 if isinstance(value, bool) else 1, value)
