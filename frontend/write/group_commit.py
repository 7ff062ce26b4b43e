"""Group commit: small writes to one collection that come while one of them is being appended are appended together.

A group is one append: one batch, one run of the script, one entry per shard. So it costs little more than each of its
members would by itself, and each is acknowledged when all are durable.

1. A write to a collection that no small write is being appended to is appended at once.
2. Others wait. When that append has ended, those that wait and saw the same version of the collection go together.
3. What may refuse a group may be one member's fault (another dimension, one row too many for the backlog), and
   nothing of it was applied. So the members are then appended one by one, and each hears what concerns it.

Who gives up waiting takes nothing from the others, and is appended with them: its outcome was unknown in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from frontend.concurrency import off_loop
from shared.errors import Backoff, DimensionMismatch, StaleGeneration
from shared.log.append import AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.records.model import Op
from shared.vectors.arrays import RowNumbers, Vectors

if TYPE_CHECKING:
    from frontend.write.dirty import DirtyShards
    from shared.catalog import Collection
    from shared.log.log import Log

SMALL_BYTES_MAX: Final = 64 * 1024
"""A larger write is appended by itself: it gains nothing from others, and they would wait for it."""

GROUP_BYTES_MAX: Final = 1024 * 1024

REFUSALS: Final = (DimensionMismatch, StaleGeneration, Backoff)
"""Nothing was applied, and it may be for one member's sake."""


@dataclass(frozen=True, slots=True)
class Operations:
    """What one request appends: columns as `build_batch` takes them. `size`: about how many bytes."""

    op: Op
    ids: Sequence[str]
    embeddings: Vectors | None = None
    embedding_rows: RowNumbers | None = None
    documents: Sequence[str | None] | None = None
    metadatas: Sequence[bytes | None] | None = None
    uris: Sequence[str | None] | None = None
    kinds: frozenset[tuple[str, str]] = frozenset()
    size: int | None = None

    @property
    def width(self) -> int | None:
        return None if self.embeddings is None else self.embeddings.shape[1]

    @property
    def rows_embedded(self) -> RowNumbers:
        """The rows that have an embedding."""
        if self.embedding_rows is not None:
            return self.embedding_rows
        return np.arange(0 if self.embeddings is None else len(self.ids))

    @property
    def small(self) -> bool:
        return self.size is not None and self.size <= SMALL_BYTES_MAX


@dataclass(slots=True)
class _Member:
    collection: Collection
    operations: Operations
    request_id: str
    done: asyncio.Future[None] | None = None


@dataclass(slots=True)
class _Queue:
    """Who waits while an append to the collection is on its way."""

    waiting: list[_Member] = field(default_factory=list)
    task: asyncio.Task[None] | None = None  # kept, or it could be collected while it runs


class GroupCommit:
    """Appends writes, small ones in groups, and says which shards were written."""

    def __init__(self, log: Log, dirty: DirtyShards) -> None:
        self._log = log
        self._dirty = dirty
        self._queues: dict[str, _Queue] = {}

    async def append(self, collection: Collection, operations: Operations, request_id: str) -> None:
        """Durable on return. Raises what `Log.append` does."""
        member = _Member(collection, operations, request_id)
        if not operations.small:
            return await self._append([member])
        queue = self._queues.get(collection.id)
        if queue is not None:
            member.done = asyncio.get_running_loop().create_future()
            queue.waiting.append(member)
            return await member.done
        self._queues[collection.id] = _Queue()
        try:
            return await self._append([member])
        finally:
            self._next(collection.id)

    def _next(self, collection_id: str) -> None:
        queue = self._queues[collection_id]
        if queue.waiting:
            queue.task = asyncio.create_task(self._append_group(collection_id, _group(queue.waiting)))
        else:
            del self._queues[collection_id]

    async def _append_group(self, collection_id: str, members: list[_Member]) -> None:
        try:
            await self._append(members)
        except REFUSALS:
            for member in members:
                await self._append_one(member)
        except Exception as error:
            for member in members:
                _fail(member, error)
        else:
            for member in members:
                _acknowledge(member)
        finally:
            self._next(collection_id)

    async def _append_one(self, member: _Member) -> None:
        try:
            await self._append([member])
        except Exception as error:
            _fail(member, error)
        else:
            _acknowledge(member)

    async def _append(self, members: Sequence[_Member]) -> None:
        first, operations = members[0], [member.operations for member in members]
        collection = first.collection
        kinds = frozenset(chain.from_iterable(each.kinds for each in operations))
        size = sum(each.size or 0 for each in operations) if first.operations.small else None
        parts = await off_loop(size, lambda: split_batch(joined(operations), collection.layout))
        request = AppendRequest(
            collection_id=collection.id,
            request_id=first.request_id,
            batches=parts,
            dimension=first.operations.width,
            generation=collection.generation,
            new_keys=sorted(kinds - collection.keys),
        )
        await self._log.append(request)
        self._dirty.add(collection.id, parts)


def _acknowledge(member: _Member) -> None:
    if member.done is not None and not member.done.done():
        member.done.set_result(None)


def _fail(member: _Member, error: Exception) -> None:
    if member.done is not None and not member.done.done():
        member.done.set_exception(error)


def _group(waiting: list[_Member]) -> list[_Member]:
    """Takes the first of those who wait, and all others that can go with it."""
    first = waiting[0]
    width = first.operations.width
    size = 0
    group: list[_Member] = []
    for member in waiting:
        size += member.operations.size or 0
        if group and (
            size > GROUP_BYTES_MAX
            or member.collection.generation != first.collection.generation
            or member.operations.width != width
        ):
            break
        group.append(member)
    del waiting[: len(group)]
    return group


def joined(operations: Sequence[Operations]) -> pa.RecordBatch:
    """One batch of several requests' operations, in their order."""
    if len(operations) == 1:
        (only,) = operations
        return build_batch(
            only.op, only.ids, only.embeddings, only.embedding_rows, only.documents, only.metadatas, only.uris
        )
    lengths = [len(each.ids) for each in operations]
    rows = None
    if any(each.embeddings is None or each.embedding_rows is not None for each in operations):
        starts = np.cumsum([0, *lengths[:-1]])
        rows = np.concatenate([start + each.rows_embedded for each, start in zip(operations, starts, strict=True)])
    given = [each.embeddings for each in operations if each.embeddings is not None]
    return build_batch(
        np.repeat(np.array([each.op for each in operations], dtype=np.uint8), lengths),
        list(chain.from_iterable(each.ids for each in operations)),
        np.concatenate(given) if given else None,
        rows,
        _column([each.documents for each in operations], lengths),
        _column([each.metadatas for each in operations], lengths),
        _column([each.uris for each in operations], lengths),
    )


def _column(columns: Sequence[Sequence[Any] | None], lengths: Sequence[int]) -> list[Any] | None:
    """The columns one behind the other; None where all are."""
    if all(column is None for column in columns):
        return None
    filled = ([None] * length if column is None else column for column, length in zip(columns, lengths, strict=True))
    return list(chain.from_iterable(filled))
