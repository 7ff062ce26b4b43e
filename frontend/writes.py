"""From an accepted write to entries of the log.

The collection's row may come from a cache. Nothing here trusts it: the append script compares generation and
dimension with the collection's own state, and a stale row is fetched again and the write checked against it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter

from frontend.offload import off_loop
from frontend.write_validation import (
    Write,
    check_lengths,
    check_values,
    check_width,
    wrong_width,
)
from shared.errors import DimensionMismatch, InvalidArgument, PolychromeError, StaleGeneration
from shared.log.batch import EncodedEntry, build_batch, split_batch
from shared.model import Op

if TYPE_CHECKING:
    from frontend.shell import Shell
    from shared.catalog import Collection

STALE_ROWS_MAX: Final = 3
"""How often a row that turns out to be outdated is fetched again within one write."""

RECORDS_WRITTEN = Counter("polychrome_frontend_records_written_total", "Operations appended to the log", ["operation"])


@dataclass(frozen=True, slots=True)
class Prepared:
    """A write ready for the log. `width` is None when it has no embeddings. With a `refusal` there is nothing to
    append, but the width has passed its check and fixes the dimension of a collection that has none yet.
    """

    width: int | None
    kinds: frozenset[tuple[str, str]] = frozenset()
    parts: Mapping[int, Sequence[EncodedEntry]] | None = None
    refusal: PolychromeError | None = None


def prepare(write: Write, dimension: int | None, shards: int) -> Prepared:
    """Check the values of a write and encode it. Pure, heavy. Raises InvalidArgument."""
    embeddings = check_values(write)
    width = None if embeddings is None else check_width(embeddings, dimension)
    try:
        check_lengths(write)
    except InvalidArgument as refusal:
        return Prepared(width, refusal=refusal)
    batch = build_batch(
        write.op,
        write.ids,
        None if embeddings is None else embeddings.matrix,
        None if embeddings is None else embeddings.present,
        write.documents,
        None if write.metadatas is None else write.metadatas.texts(),
        write.uris,
    )
    kinds = frozenset[tuple[str, str]]() if write.metadatas is None else write.metadatas.kinds()
    return Prepared(width, kinds, split_batch(batch, shards))


async def append_write(shell: Shell, collection: Collection, write: Write, size: int | None) -> None:
    """Check `write` against the collection and append it; acknowledged by returning. `size`: bytes of the body."""
    prepared = await off_loop(size, prepare, write, collection.dimension, collection.shards)
    if prepared.refusal is not None:
        if prepared.width is not None and collection.dimension is None:
            fixed = await shell.log.fix_dimension(collection.id, prepared.width)
            if fixed != prepared.width:
                raise wrong_width(fixed, prepared.width)
        raise prepared.refusal
    await _append(shell, collection, write.op, prepared, len(write.ids))


async def append_delete(shell: Shell, collection: Collection, ids: Sequence[str]) -> None:
    """Append the removal of `ids`, known or not."""
    parts = await off_loop(sum(map(len, ids)), _encode_delete, ids, collection.shards)
    await _append(shell, collection, Op.DELETE, Prepared(None, parts=parts), len(ids))


def _encode_delete(ids: Sequence[str], shards: int) -> Mapping[int, Sequence[EncodedEntry]]:
    return split_batch(build_batch(Op.DELETE, ids, None, None, None, None, None), shards)


async def _append(shell: Shell, collection: Collection, op: Op, prepared: Prepared, count: int) -> None:
    if not count or prepared.parts is None:
        return
    request_id = uuid.uuid4().hex
    for attempt in range(STALE_ROWS_MAX + 1):
        try:
            await shell.log.append(
                collection.id,
                request_id,
                prepared.parts,
                count,
                dimension=prepared.width,
                generation=collection.generation,
                new_keys=sorted(prepared.kinds - collection.keys),
            )
            break
        except DimensionMismatch as error:
            raise wrong_width(error.expected, prepared.width or 0) from None
        except StaleGeneration:
            if attempt == STALE_ROWS_MAX:
                raise
            collection = await shell.rows.refresh(collection)
    RECORDS_WRITTEN.labels(op.name.lower()).inc(count)
    shell.dirty.add(collection.id, prepared.parts)
