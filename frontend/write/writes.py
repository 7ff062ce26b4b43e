"""Turns a write of the right shape into operations in the log.

The collection's row may come from a cache. Nothing here trusts it: the append script compares generation, shards and
dimension with the collection's own state. When the row is stale it is read again, and the write begins anew with the
current row: its documents are embedded by the function that the row selects now, and its values are checked.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import Counter

from frontend.collections.current_row import with_current_row
from frontend.concurrency import off_loop
from frontend.parse.durability import DISK, Durability
from frontend.parse.writes import Write, check_lengths, check_values, check_width, wrong_width
from frontend.write.operations import Operations
from shared.errors import DimensionMismatch, InvalidArgument, PolychromeError
from shared.records.model import Op

if TYPE_CHECKING:
    from frontend.collections.row_cache import RowCache
    from frontend.embed.texts import TextEmbedding
    from frontend.write.group_commit import GroupCommit
    from shared.catalog import Collection
    from shared.log.log import Log

RECORDS_WRITTEN = Counter("polychrome_frontend_records_written_total", "Operations appended to the log.", ["operation"])


@dataclass(frozen=True, slots=True)
class PreparedWrite:
    """A write whose values were checked. `width` is the dimension of its embeddings, None when it has none. With a
    `refusal` there is nothing to append, but the width has passed its check and fixes the dimension of a collection
    that has none yet.
    """

    width: int | None
    operations: Operations | None = None
    refusal: PolychromeError | None = None


def prepare(write: Write, dimension: int | None, size: int | None) -> PreparedWrite:
    """Checks the values of a write against the collection's dimension and lays them out as columns for the log. Pure
    and heavy: to be called off the event loop. `size`: bytes of the body. Raises InvalidArgument.
    """
    embeddings = check_values(write)
    width = None if embeddings is None else check_width(embeddings, dimension)
    try:
        check_lengths(write)
    except InvalidArgument as refusal:
        return PreparedWrite(width, refusal=refusal)
    metadatas = write.metadatas
    operations = Operations(
        write.op,
        write.ids,
        None if embeddings is None else embeddings.matrix,
        None if embeddings is None else embeddings.present,
        write.documents,
        None if metadatas is None else metadatas.texts(),
        write.uris,
        frozenset() if metadatas is None else metadatas.kinds(),
        size,
    )
    return PreparedWrite(width, operations)


def deletion(ids: Sequence[str]) -> Operations:
    """The operations that delete records by id, whether or not they exist."""
    return Operations(Op.DELETE, ids, size=sum(map(len, ids)))


class Writer:
    """Appends writes to the logs of collections. A write is acknowledged, and durable, when its method returns."""

    def __init__(self, log: Log, groups: GroupCommit, rows: RowCache, texts: TextEmbedding) -> None:
        self._log = log
        self._groups = groups
        self._rows = rows
        self._texts = texts

    async def write(
        self, collection: Collection, write: Write, size: int | None, durability: Durability = DISK
    ) -> None:
        """Embeds the documents of an add, update or upsert if it asks for that, checks it against the collection and
        appends it. `size`: bytes of the body. Raises InvalidArgument, NotFound for a collection that is deleted, and
        what `TextEmbedding.embed_documents` and `GroupCommit.append` do.
        """
        request_id = uuid.uuid4().hex
        await with_current_row(
            self._rows, collection, lambda current: self._write(current, write, size, request_id, durability)
        )

    async def delete(self, collection: Collection, ids: Sequence[str], durability: Durability = DISK) -> None:
        """Appends the deletion of these ids, whether or not they exist. Raises what `write` does."""
        operations, request_id = deletion(ids), uuid.uuid4().hex
        await with_current_row(
            self._rows, collection, lambda current: self._append(current, operations, request_id, durability)
        )

    async def _write(
        self, collection: Collection, write: Write, size: int | None, request_id: str, durability: Durability
    ) -> None:
        """Does a write by this row. Raises StaleGeneration when the row is outdated: nothing was appended then."""
        write = await self._texts.embed_documents(collection, write, size)
        prepared = await off_loop(size, prepare, write, collection.dimension, size)
        if prepared.refusal is not None:
            if prepared.width is not None and collection.dimension is None:
                await self._fix_dimension(collection, prepared.width)
            raise prepared.refusal
        if prepared.operations is not None:
            await self._append(collection, prepared.operations, request_id, durability)

    async def _fix_dimension(self, collection: Collection, width: int) -> None:
        fixed = await self._log.fix_dimension(collection.id, width)
        if fixed != width:
            raise wrong_width(fixed, width)

    async def _append(
        self, collection: Collection, operations: Operations, request_id: str, durability: Durability
    ) -> None:
        if not operations.ids:
            return
        try:
            await self._groups.append(collection, operations, request_id, durability)
        except DimensionMismatch as error:
            raise wrong_width(error.expected, operations.width or 0) from None
        count_written(operations)


def count_written(operations: Operations) -> None:
    """Counts operations that were appended, in the metric of records written."""
    _records_written(operations.op).inc(len(operations.ids))


@functools.cache
def _records_written(op: Op) -> Counter:
    """Looking a metric up by its label costs more than counting."""
    return RECORDS_WRITTEN.labels(op.name.lower())
