"""Count and get: the records that a request selects, by insertion.

Where a filter is undecided about rows (`queryworker.filter.result`), a page is resolved from its beginning until it is
full; a count and a get without a limit resolve everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from queryworker.query.columns import (
    NO_ROWS,
    RequestedColumns,
    RowRefs,
    assemble,
    claim_values,
    encoded_bytes,
    objects_bytes,
    written_at,
)
from queryworker.query.selected_rows import SelectedRows, select, select_numbers
from queryworker.query.stats import ExecutionStats
from queryworker.view.part import ViewPart
from queryworker.view.read_view import ReadView
from shared.process import work
from shared.records.selection import EVERYTHING
from shared.rpc.messages import CountRequest, CountResponse, GetRequest, GetResponse
from shared.vectors.arrays import Indices, Mask, Positions, RowNumbers

RESOLVED_AT_FIRST: Final = 64
"""How many rows of a page that a filter is undecided about are resolved in the first round, if the page has not more
itself; each round resolves twice as many as the one before.
"""


class AnswerTooLongError(Exception):
    """The answer would have more bytes than the caller allows."""


def count_records(view: ReadView, request: CountRequest) -> CountResponse:
    """The number of records that the request selects."""
    if request.selection == EVERYTHING:
        return CountResponse(view.live_records, view.position)
    selected = select(view, request.selection)
    count = sum(rows.resolved().count for rows in selected)
    work.scanned(count)
    return CountResponse(count, view.position)


def get_records(view: ReadView, request: GetRequest, bytes_max: int | None = None) -> GetResponse:
    """A page of the records that the request selects, or those that were inserted at the positions that it names.
    Raises AnswerTooLongError, before it reads the records, when they have about more than `bytes_max` bytes.
    """
    stats = ExecutionStats()
    selected, found = _find(view, request, stats)
    requested = requested_columns(request)
    if bytes_max is not None and encoded_bytes(view, found, requested) > bytes_max:
        raise AnswerTooLongError
    if bytes_max is None:
        work.claim(objects_bytes(len(found.rows), requested))
        claim_values(view, found, requested, as_json=request.include is not None)
    inserted, columns = assemble(view, found, requested)
    stats.stage_ended("assemble")
    return GetResponse(
        inserted=inserted.astype("<i8", copy=False).tobytes(),
        columns=columns,
        position=view.position,
        explanation=stats.explanation(view, request.shard.shard, selected) if request.explain else None,
        written=written_at(view, found).astype("<i8").tobytes() if request.written else None,
    )


def find_rows(view: ReadView, request: GetRequest) -> RowRefs:
    """The rows that `get_records` would read, in their order."""
    return _find(view, request, ExecutionStats())[1]


def requested_columns(request: GetRequest) -> RequestedColumns:
    """The columns that the request wants to have."""
    return RequestedColumns(request.ids, request.documents, request.metadatas, request.uris, request.embeddings)


def _find(view: ReadView, request: GetRequest, stats: ExecutionStats) -> tuple[Sequence[SelectedRows], RowRefs]:
    if request.inserted is not None:
        selected = _select_inserted_at(view, np.frombuffer(request.inserted, "<i8"))
        begin, end = 0, None
    else:
        selected = select(view, request.selection)
        begin, end = request.offset, None if request.limit is None else request.offset + request.limit
    stats.stage_ended("filter")
    found = _page(selected, begin, end, stats)
    work.scanned(len(found.rows))
    stats.stage_ended("search")
    return selected, found


def _page(selected: Sequence[SelectedRows], begin: int, end: int | None, stats: ExecutionStats) -> RowRefs:
    """The `begin`-th to the `end`-th (exclusive, None: the last) of the rows that match, by insertion."""
    undecided = [number for number, rows in enumerate(selected) if rows.undecided is not None]
    if undecided and end is not None:
        return _first_matching(_by_insertion(selected), selected, end, stats).slice(begin, end)
    for number in undecided:
        stats.part(number).documents_read += selected[number].count
        work.scanned(selected[number].count)
    return _by_insertion([rows.resolved() for rows in selected], begin, end)


def _first_matching(
    candidates: RowRefs, selected: Sequence[SelectedRows], count: int, stats: ExecutionStats
) -> RowRefs:
    """The first `count` of the candidates that match, resolved round by round until there are as many."""
    kept: list[Indices] = []
    at, step = 0, max(RESOLVED_AT_FIRST, count)
    while at < len(candidates.rows) and count > 0:
        places = np.arange(at, min(at + step, len(candidates.rows)))
        kept.append(places[_resolve(candidates.take(places), selected, stats)])
        count -= len(kept[-1])
        at, step = at + step, 2 * step
    return candidates.take(np.concatenate([np.empty(0, np.intp), *kept]))


def _resolve(refs: RowRefs, selected: Sequence[SelectedRows], stats: ExecutionStats) -> Mask:
    """Which of the rows match."""
    matching = np.ones(len(refs.rows), np.bool_)
    for number, rows in enumerate(selected):
        if rows.undecided is not None:
            places = np.flatnonzero(refs.parts == number)
            matching[places] = rows.undecided.resolve(refs.rows[places])
            stats.part(number).documents_read += len(places)
            work.scanned(len(places))
    return matching


def _by_insertion(selected: Sequence[SelectedRows], begin: int = 0, end: int | None = None) -> RowRefs:
    """The `begin`-th to the `end`-th of the selected rows, by insertion."""
    filled = [(number, rows) for number, rows in enumerate(selected) if rows.count]
    if not filled:
        return NO_ROWS
    if len(filled) == 1 and filled[0][1].part.in_insertion_order:  # a page of it is made without the rest
        number, only = filled[0]
        page = only.rows(begin, end)
        return RowRefs(np.full(len(page), number, np.intp), page)
    numbers = [rows.rows() for _, rows in filled]
    refs = RowRefs(
        np.repeat([number for number, _ in filled], [len(some) for some in numbers]), np.concatenate(numbers)
    )
    inserted = np.concatenate([rows.part.inserted[some] for (_, rows), some in zip(filled, numbers, strict=True)])
    return refs.take(np.argsort(inserted, kind="stable")[begin:end])  # made of ascending runs: merged, not sorted


def _select_inserted_at(view: ReadView, positions: Positions) -> list[SelectedRows]:
    """The live rows that were inserted at these positions, which ascend; records that are gone are left out."""
    return [select_numbers(part, _rows_inserted_at(part, positions)) for part in view.parts]


def _rows_inserted_at(part: ViewPart, positions: Positions) -> RowNumbers:
    if not part.in_insertion_order:
        return np.flatnonzero(np.isin(part.inserted, positions))
    rows: RowNumbers = np.searchsorted(part.inserted, positions)
    inside = rows < part.rows
    rows, positions = rows[inside], positions[inside]
    hit: Mask = part.inserted[rows] == positions  # positions of records in other parts lead to rows of this one as well
    return rows[hit]
