"""The rows that a request means, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from queryworker.filter.result import FilterResult
from queryworker.view.part import ViewPart
from queryworker.view.read_view import ReadView
from shared.process.lazy import lazy
from shared.records.selection import Selection
from shared.vectors.arrays import Mask, RowNumbers


@dataclass(frozen=True, eq=False)
class Matches:
    """The living rows of a part that a selection means: `matching` of them, those of `mask`, or all when it is None.
    With a `verdict` only some of them: it decides which (see `queryworker.filter.evaluate`). `chosen` are the rows,
    ascending, where they are known by number: a mask of a few rows among all is made for those alone who need one.
    """

    part: ViewPart
    some: Mask | None
    matching: int
    filter_result: FilterResult | None = None
    chosen: RowNumbers | None = None

    @lazy
    def mask(self) -> Mask | None:
        if self.chosen is None:
            return self.some
        mask = np.zeros(self.part.rows, np.bool_)
        mask[self.chosen] = True
        return mask

    def rows(self, begin: int = 0, end: int | None = None) -> RowNumbers:
        """Ascending, from the place `begin` to the place `end`."""
        if self.chosen is not None:
            return self.chosen[begin:end]
        if self.mask is not None:
            return np.flatnonzero(self.mask)[begin:end]
        return np.arange(*slice(begin, end).indices(self.part.rows))

    def settled(self) -> Matches:
        """Without a verdict."""
        if self.filter_result is None or self.mask is None:
            return self
        return _of(self.part, self.mask & self.filter_result.resolve_all())


def select(view: ReadView, selection: Selection) -> list[Matches]:
    """What the selection means in each part."""
    if selection.ids is not None:
        return _select_ids(view, selection.ids, selection)
    if selection.where is None:
        return [Matches(part, part.alive, part.live_rows) for part in view.parts]
    return [_within(part, part.filter(selection.where), part.alive) for part in view.parts]


def of_rows(part: ViewPart, rows: RowNumbers) -> Matches:
    """Those of the rows, which ascend, that live."""
    chosen = rows if part.alive is None else rows[part.alive[rows]]
    return Matches(part, None, len(chosen), chosen=chosen)


def _select_ids(view: ReadView, ids: Sequence[str], selection: Selection) -> list[Matches]:
    found: list[Matches] = []
    for part, rows in zip(view.parts, view.find(ids), strict=True):
        matches = of_rows(part, rows)
        if selection.where is not None and len(rows):
            matches = _within(part, part.filter(selection.where), matches.mask)
        found.append(matches)
    return found


def _within(part: ViewPart, result: FilterResult, mask: Mask | None) -> Matches:
    resolved, candidates = result.resolved, result.candidates  # in this order: a thread may resolve it meanwhile
    return _of(part, candidates if mask is None else candidates & mask, None if resolved else result)


def _of(part: ViewPart, mask: Mask, filter_result: FilterResult | None = None) -> Matches:
    return Matches(part, mask, int(np.count_nonzero(mask)), filter_result)
