"""The rows of a read view that a request selects, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from queryworker.filter.result import FilterResult
from queryworker.view.part import ViewPart
from queryworker.view.read_view import ReadView
from shared.process.lazy import lazy
from shared.records.selection import Selection
from shared.records.where import Where
from shared.vectors.arrays import Mask, RowNumbers


@dataclass(frozen=True, eq=False)
class SelectedRows:
    """The live rows of one part that a selection selects: `count` of them. They are given as a mask over the part's
    rows, or as their `numbers`, ascending; as neither when all rows of the part are selected.

    While a filter is `undecided`, these are candidates only, and the filter's result resolves which of them match
    (`queryworker.filter.result`); it is None when all of them do.
    """

    part: ViewPart
    given_mask: Mask | None
    count: int
    undecided: FilterResult | None = None
    numbers: RowNumbers | None = None

    @lazy
    def mask(self) -> Mask | None:
        """The selected rows as a mask over the part's rows; None for all. Made of the numbers, if rows are given by
        number, for those callers alone that need it.
        """
        if self.numbers is None:
            return self.given_mask
        mask = np.zeros(self.part.rows, np.bool_)
        mask[self.numbers] = True
        return mask

    def rows(self, begin: int = 0, end: int | None = None) -> RowNumbers:
        """The numbers of the selected rows, ascending, from the `begin`-th to the `end`-th (exclusive)."""
        if self.numbers is not None:
            return self.numbers[begin:end]
        if self.mask is not None:
            return np.flatnonzero(self.mask)[begin:end]
        return np.arange(*slice(begin, end).indices(self.part.rows))

    def resolved(self) -> SelectedRows:
        """The rows that match, after all undecided ones were resolved by reading their documents."""
        if self.undecided is None or self.mask is None:
            return self
        return _masked(self.part, self.mask & self.undecided.resolve_all())


def select(view: ReadView, selection: Selection) -> list[SelectedRows]:
    """The rows that a selection selects in each part of the view. Errors as
    `queryworker.filter.evaluate.evaluate`.
    """
    if selection.ids is not None:
        return _select_ids(view, selection.ids, selection.where)
    if selection.where is None:
        return [SelectedRows(part, part.alive, part.live_rows) for part in view.parts]
    return [_filtered(part, part.filter(selection.where), part.alive) for part in view.parts]


def select_numbers(part: ViewPart, rows: RowNumbers) -> SelectedRows:
    """Those of the rows with these numbers, ascending, that are alive."""
    alive = rows if part.alive is None else rows[part.alive[rows]]
    return SelectedRows(part, None, len(alive), numbers=alive)


def _select_ids(view: ReadView, ids: Sequence[str], where: Where | None) -> list[SelectedRows]:
    found: list[SelectedRows] = []
    for part, rows in zip(view.parts, view.find(ids), strict=True):
        selected = select_numbers(part, rows)
        if where is not None and len(rows):
            selected = _filtered(part, part.filter(where), selected.mask)
        found.append(selected)
    return found


def _filtered(part: ViewPart, result: FilterResult, mask: Mask | None) -> SelectedRows:
    """The rows of the mask (None: all) that match or may match a filter."""
    resolved, candidates = result.resolved, result.candidates  # in this order: a thread may resolve it meanwhile
    return _masked(part, candidates if mask is None else candidates & mask, None if resolved else result)


def _masked(part: ViewPart, mask: Mask, undecided: FilterResult | None = None) -> SelectedRows:
    return SelectedRows(part, mask, int(np.count_nonzero(mask)), undecided)
