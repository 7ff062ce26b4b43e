"""Conditional transactions: reads as of one position, and writes that are appended together if nothing that was read
has been written since (docs/design/2026-11-21-transactions.md).
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from prometheus_client import Counter

from frontend.concurrency import off_loop, together
from frontend.parse.writes import wrong_width
from frontend.read.reads import STALE_READS_MAX
from frontend.write.group_commit import Operations, joined
from frontend.write.writes import STALE_ROWS_MAX, written
from shared.cluster.placement import Layout, shard_of
from shared.errors import (
    Backoff,
    ConditionalWriteConflict,
    DimensionMismatch,
    InvalidArgument,
    StaleGeneration,
    StaleRead,
    Unavailable,
)
from shared.log.append import Appended, AppendRequest
from shared.log.batch import split_batch
from shared.log.condition import CONFLICT, Condition, IdsRead, Undecided
from shared.records.selection import Selection
from shared.rpc.messages import GetRequest, Shard

if TYPE_CHECKING:
    from frontend.context import Context
    from frontend.read.workers import Workers
    from shared.catalog import Collection

Result = TypeVar("Result")

COMMITS = Counter("polychrome_frontend_conditional_commits_total", "Conditional commits, by outcome", ["outcome"])
PROOFS = Counter("polychrome_frontend_commit_proofs_total", "Commits that the log alone could not decide about")

PROOFS_MAX: Final = 100
"""How often a commit goes back to the workers because others wrote in between what may have changed its ids."""


async def read_as_of(
    context: Context, collection: Collection, token: int | None, read: Callable[[int], Awaitable[Result]]
) -> tuple[Result, int]:
    """What `read` answers as of the position `token`, and that position; without one, as of now. Raises StaleRead when
    that cannot be read any more, and Gone.
    """
    if token is not None:
        return await _read_at(context, collection, token, read), token
    for _ in range(STALE_READS_MAX):
        now = (await context.log.readable(collection.id))[-1]
        try:
            return await read(now), now
        except StaleRead:  # compacted since, and its worker begins with that
            continue
    raise Unavailable("The collection changed too fast for a consistent read; try again")


async def _read_at(
    context: Context, collection: Collection, token: int, read: Callable[[int], Awaitable[Result]]
) -> Result:
    stale = StaleRead(f"stale read: the snapshot at {token} can no longer be served; begin the transaction anew")
    try:
        answer = await read(token)
    except StaleRead:
        raise stale from None
    # Looked at afterwards, so that nothing was lost while it was read either.
    if token not in await context.log.readable(collection.id):
        raise stale
    return answer


async def commit(
    context: Context, collection: Collection, operations: Sequence[Operations], token: int | None, ids: Iterable[str]
) -> Appended:
    """Appends all operations in one step if no id in `ids` was written at `token` or later. Raises
    ConditionalWriteConflict (nothing is written), and what an append does.
    """
    request_id = uuid.uuid4().hex
    read_ids = sorted(set(ids))
    for attempt in range(STALE_ROWS_MAX + 1):
        try:
            appended = await _commit(context, collection, operations, token, read_ids, request_id)
            break
        except ConditionalWriteConflict:
            COMMITS.labels("conflict").inc()
            raise
        except StaleGeneration:
            if attempt == STALE_ROWS_MAX:
                raise
            collection = await context.rows.refresh(collection)
    COMMITS.labels("committed").inc()
    for each in operations:
        written(each.op).inc(len(each.ids))
    return appended


async def _commit(
    context: Context,
    collection: Collection,
    operations: Sequence[Operations],
    token: int | None,
    read_ids: Sequence[str],
    request_id: str,
) -> Appended:
    size, width = sum(each.size or 0 for each in operations), _width(operations)
    parts = await off_loop(size, lambda: split_batch(joined(operations), collection.layout))
    kinds = frozenset().union(*(each.kinds for each in operations))
    reads = _reads(collection.layout, token, read_ids)
    for _ in range(PROOFS_MAX):
        try:
            request = AppendRequest(
                collection_id=collection.id,
                request_id=request_id,
                batches=parts,
                dimension=width,
                generation=collection.generation,
                new_keys=sorted(kinds - collection.keys),
                condition=None if token is None or not reads else Condition(token, reads),
            )
            appended = await context.log.append(request)
        except DimensionMismatch as error:
            raise wrong_width(error.expected, width or 0) from None
        except Undecided as undecided:
            assert token is not None
            PROOFS.inc()
            reads = {**reads, **await _proven(context.workers, collection.id, token, reads, undecided.shards)}
        else:
            context.dirty.add(collection.id, parts)
            return appended
    raise Backoff("What was read is surrounded by too many writes; try again")


def _width(operations: Sequence[Operations]) -> int | None:
    """Of all embeddings. Raises InvalidArgument when they differ."""
    widths = {each.width for each in operations} - {None}
    if len(widths) > 1:
        raise InvalidArgument("Inconsistent dimensions in provided embeddings")
    return next(iter(widths), None)


def _reads(layout: Layout, token: int | None, ids: Sequence[str]) -> dict[int, IdsRead]:
    """By shard; nothing is known yet of what happened since the token."""
    homes: dict[int, list[str]] = defaultdict(list)
    if token is not None and ids:
        for home, id_ in zip(shard_of(ids, layout.count).tolist(), ids, strict=True):
            homes[layout.first + home].append(id_)
    return {shard: IdsRead(token or 0, some) for shard, some in homes.items()}


async def _proven(
    workers: Workers, collection: str, token: int, reads: Mapping[int, IdsRead], shards: Sequence[int]
) -> dict[int, IdsRead]:
    """What was read in these shards, known to be unchanged for longer. Raises ConditionalWriteConflict."""
    reached = await together(
        [_unchanged(workers, Shard(collection, shard), token, reads[shard].ids) for shard in shards]
    )
    return {shard: replace(reads[shard], since=position) for shard, position in zip(shards, reached, strict=True)}


async def _unchanged(workers: Workers, shard: Shard, token: int, ids: Sequence[str]) -> int:
    """The position, now, up to which nobody has changed these ids since the token. Raises ConditionalWriteConflict when
    somebody has, or nobody can tell.
    """
    now = await workers.get(GetRequest(shard, Selection(list(ids)), written=True))
    changed = bool((np.frombuffer(now.written or b"", "<i8") >= token).any())
    absent = sorted(set(ids).difference(now.columns.ids))
    if changed or (absent and await _was_there(workers, shard, token, absent)):
        raise ConditionalWriteConflict(CONFLICT)
    return now.position


async def _was_there(workers: Workers, shard: Shard, token: int, ids: list[str]) -> bool:
    """Whether one of these ids had a record as of the token, for all that is known."""
    try:
        then = await workers.get(GetRequest(Shard(shard.collection, shard.shard, as_of=token), Selection(ids)))
    except StaleRead:
        return True
    return bool(then.columns.ids)
