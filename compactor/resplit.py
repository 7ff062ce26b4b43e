"""Log entries of one layout of shards, divided among the shards of another one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import pyarrow as pa

from shared.cluster.placement import Layout
from shared.log.batch import decode_batch, split_batch
from shared.log.rebuild import CopiedEntry
from shared.log.state import Entry


def resplit(entries: Iterable[Entry], layout: Layout) -> dict[int, list[CopiedEntry]]:
    """The entries of whole appends, read from all present shards, as entries for the shards of `layout`, by shard. Each
    operation keeps its position.
    """
    batches: dict[int, list[CopiedEntry]] = {}
    for (first, end, time_ms), some in groupby(sorted(entries, key=_append), key=_append):
        batch = _joined([decode_batch(entry.payload) for entry in some])
        for shard, encoded in split_batch(batch, layout).items():
            batches.setdefault(shard, []).extend(
                CopiedEntry(first, end, number == len(encoded), time_ms, entry)
                for number, entry in enumerate(encoded, start=1)
            )
    return batches


def _append(entry: Entry) -> tuple[int, int, int]:
    return entry.first, entry.end, entry.time_ms


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The operations of one append, which are in several batches, ascending by offset: readers take operations in the
    order of their positions.
    """
    if len(batches) == 1:
        return batches[0]
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    [joined] = pa.concat_tables(tables, promote_options="default").sort_by("offset").combine_chunks().to_batches()
    return joined
