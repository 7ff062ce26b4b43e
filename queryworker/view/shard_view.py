"""The content of one shard in a worker: the segments of one manifest, and the log's tail applied to them.

```text
operations   1 ................ covers ................ position ........
             [ base segments of  )[ memtable: the tail   )[ not applied yet
               the manifest
stream                           ^ where reading began  ^ last_entry: id of the newest entry applied
```

A view only moves forward, and keeps every version since `covers`: a read as of any position in [covers, position] is a
mask over its rows (`shared.memtable`). A later manifest means another view, which continues the tail of this one where
it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from queryworker.view.read_view import ReadView
from queryworker.view.segment_part import BaseSegments
from queryworker.view.tail_graphs import TailGraphs
from queryworker.view.tail_index import TailIndex
from shared.errors import StaleRead
from shared.log.batch import decode_batch
from shared.log.state import Entry, Pointer, after_position
from shared.memtable.memtable import Memtable
from shared.records.indexing import EVERYTHING, Indexing
from shared.records.model import FIRST_POSITION
from shared.segment.graph import GraphParams
from shared.segment.segment_set import SegmentSet
from shared.vectors.space import Space


@dataclass(frozen=True, slots=True)
class OpenManifest:
    """A manifest with its segments opened. `pointer` is None for a shard that was never compacted, which has no
    segments; `bytes` is the size of the segments' files; `graph` are the parameters that the collection's graphs are
    built with.
    """

    pointer: Pointer | None
    segments: SegmentSet
    dimension: int | None
    graph: GraphParams
    bytes: int
    indexing: Indexing = EVERYTHING

    @property
    def space(self) -> Space:
        return self.graph.space

    @property
    def covers(self) -> int:
        """The position up to which, exclusive, the manifest holds everything."""
        return self.pointer.covers if self.pointer else FIRST_POSITION


class ShardView:
    """A manifest and the tail after it, moved forward by `apply`.

    Threads: `apply` is called by one thread at a time, and so is `build_graph_step`; `read_view` by any.
    """

    def __init__(self, manifest: OpenManifest, continued: ShardView | None = None) -> None:
        """`continued` is a view that has everything that the manifest covers: its tail after that goes on here, and
        nothing may be applied to it any more. Without it the tail is empty.
        """
        self.manifest = manifest
        self.position = manifest.covers
        """Every operation below is in the view. Moved by the event loop alone, after the operations are applied."""
        self.last_entry = after_position(manifest.covers)
        """Id of the newest stream entry that was applied. Before the first one, the place in the stream where the
        manifest ends.
        """
        self.last_chain = ""
        """Chain of that entry; "" before the first one, and for one of version 0.1.0."""
        self.broken = False
        """Whether the log was seen not to continue what the view has: another view has to take its place."""
        self.epoch = 0
        """Epoch of the shard's state when the view was loaded. A restoration since may have given up what it holds."""
        self.tail_index = TailIndex(manifest.indexing)
        if continued is None:
            self.memtable = Memtable(manifest.segments, manifest.dimension)
            self.graphs = TailGraphs(manifest.graph)
            self.first_ordinal = 0
            """Ordinal, in `graphs`, of the tail's row 0."""
        else:
            self.position, self.last_entry = continued.position, continued.last_entry
            self.last_chain = continued.last_chain
            self.memtable = continued.memtable.rebased(manifest.segments, manifest.covers)
            self.graphs = continued.graphs
            self.first_ordinal = continued.first_ordinal + continued.memtable.rows - self.memtable.rows
            self.graphs.drop_before(self.first_ordinal)
        self._base = BaseSegments(manifest.segments)
        self._newest: ReadView | None = None

    def can_continue(self, manifest: OpenManifest) -> bool:
        """Whether a view of a later manifest may take over the tail of this one."""
        return not self.broken and self.manifest.covers <= manifest.covers <= self.position

    @property
    def bytes(self) -> int:
        """About how much memory the view takes, mapped files included."""
        tail = self.memtable.bytes + self.tail_index.bytes + self.graphs.bytes
        return self.manifest.bytes + self._base.bytes + tail

    def apply(self, entries: Sequence[Entry], batches: Sequence[pa.RecordBatch] | None = None) -> None:
        """Applies entries of whole appends, in log order; `batches` are theirs, if they are decoded already. Readers
        notice nothing until `position` moves. Raises Corrupt for an entry that no frontend writes; the view is of no
        use after that.
        """
        for entry, batch in zip(entries, batches or [decode_batch(entry.payload) for entry in entries], strict=True):
            self.memtable.apply(batch, entry.first, entry.end)

    @property
    def graph_step_due(self) -> bool:
        """Whether the tail has grown enough for `build_graph_step`."""
        return self.graphs.step_due(self.first_ordinal, self.memtable.rows)

    def build_graph_step(self) -> None:
        """Insert the next rows of the tail into a graph. Takes seconds; readers notice nothing until it is done."""
        self.graphs.build_step(self.memtable.vectors, self.first_ordinal)

    def read_view(self, as_of: int | None = None) -> ReadView:
        """The shard as of a position, None for the newest one. Raises StaleRead for a position that the view does not
        reach. Between two writes all reads of the newest position get the same object.
        """
        position = self.position if as_of is None else as_of
        if not self.manifest.covers <= position <= self.position:
            raise StaleRead(f"position {position} is not in [{self.manifest.covers}, {self.position}]; read again")
        graphs = self.graphs.graphs
        newest = self._newest
        if newest is not None and newest.tail_graphs is graphs and newest.position == position:
            return newest
        view = ReadView(
            position=position,
            space=self.manifest.space,
            dimension=self.memtable.dimension,
            base=self._base,
            memtable=self.memtable,
            tail=self.memtable.at(position),
            tail_index=self.tail_index,
            tail_graphs=graphs,
            first_ordinal=self.first_ordinal,
        )
        if position == self.position:
            self._newest = view
        return view
