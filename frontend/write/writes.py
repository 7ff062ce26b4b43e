"""From an accepted write to entries of the log.

The collection's row may come from a cache. Nothing here trusts it: the append script compares generation and
dimension with the collection's own state, and a stale row is fetched again and the write checked against it.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter

from frontend.concurrency import off_loop
from frontend.parse.writes import (
    Write,
    check_lengths,
    check_values,
    check_width,
    wrong_width,
)
from frontend.write.group_commit import Operations
from shared.errors import DimensionMismatch, InvalidArgument, PolychromeError, StaleGeneration
from shared.records.model import Op

if TYPE_CHECKING:
    from frontend.context import Context
    from shared.catalog import Collection

STALE_ROWS_MAX: Final = 3
"""How often a row that turns out to be outdated is fetched again within one write."""

RECORDS_WRITTEN = Counter("polychrome_frontend_records_written_total", "Operations appended to the log", ["operation"])


@dataclass(frozen=True, slots=True)
class Prepared:
    """A write that was checked. `width` is None when it has no embeddings. With a `refusal` there is nothing to
    append, but the width has passed its check and fixes the dimension of a collection that has none yet.
    """

    width: int | None
    operations: Operations | None = None
    refusal: PolychromeError | None = None


def prepare(write: Write, dimension: int | None, size: int | None) -> Prepared:
    """Check the values of a write. Pure, heavy. Raises InvalidArgument."""
    embeddings = check_values(write)
    width = None if embeddings is None else check_width(embeddings, dimension)
    try:
        check_lengths(write)
    except InvalidArgument as refusal:
        return Prepared(width, refusal=refusal)
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
    return Prepared(width, operations)


async def append_write(context: Context, collection: Collection, write: Write, size: int | None) -> None:
    """Check `write` against the collection and append it; acknowledged by returning. `size`: bytes of the body."""
    prepared = await off_loop(size, prepare, write, collection.dimension, size)
    if prepared.refusal is not None:
        if prepared.width is not None and collection.dimension is None:
            fixed = await context.log.fix_dimension(collection.id, prepared.width)
            if fixed != prepared.width:
                raise wrong_width(fixed, prepared.width)
        raise prepared.refusal
    if prepared.operations is not None:
        await _append(context, collection, prepared.operations)


async def append_delete(context: Context, collection: Collection, ids: Sequence[str]) -> None:
    """Append the removal of `ids`, known or not."""
    await _append(context, collection, Operations(Op.DELETE, ids, size=sum(map(len, ids))))


async def _append(context: Context, collection: Collection, operations: Operations) -> None:
    if not operations.ids:
        return
    request_id = uuid.uuid4().hex
    for attempt in range(STALE_ROWS_MAX + 1):
        try:
            await context.groups.append(collection, operations, request_id)
            break
        except DimensionMismatch as error:
            raise wrong_width(error.expected, operations.width or 0) from None
        except StaleGeneration:
            if attempt == STALE_ROWS_MAX:
                raise
            collection = await context.rows.refresh(collection)
    written(operations.op).inc(len(operations.ids))


@functools.cache
def written(op: Op) -> Counter:
    return RECORDS_WRITTEN.labels(op.name.lower())
