"""The databases and the layouts of many collections, and what was written in them lately, read from their states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from redis.asyncio import Redis

from shared.cluster.placement import Layout
from shared.log.required import is_whole
from shared.redis.client import retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX


class OwnedLayout(NamedTuple):
    """The present layout of a collection, and the key of the database that it belongs to. `written` are the fields of
    that name and `written_before`, as they are stored (`shared.tenancy.usage.parse_written`).
    """

    database_key: str
    layout: Layout
    written: tuple[bytes | None, bytes | None] = (None, None)


async def read_layouts(redis: Redis, keys: Keys, ids: Sequence[str]) -> dict[str, OwnedLayout]:
    """The layouts of these collections, by id, pipelined. Collections that are gone are left out, and so are those
    whose state cannot be read. Raises Unavailable.
    """
    found: dict[str, OwnedLayout] = {}
    for start in range(0, len(ids), PIPELINE_MAX):
        batch = ids[start : start + PIPELINE_MAX]
        rows = await retry_idempotent(partial(_rows, redis, keys, batch), writes=False)
        for collection_id, (database_key, layout, deleted, *written) in zip(batch, rows, strict=True):
            if deleted is None and is_whole({"db": database_key, "layout": layout}):
                found[collection_id] = OwnedLayout(database_key.decode(), Layout.decode(layout), tuple(written))
    return found


async def _rows(redis: Redis, keys: Keys, ids: Iterable[str]) -> list[Any]:
    async with redis.pipeline(transaction=False) as pipeline:
        for collection_id in ids:
            pipeline.hmget(keys.state(collection_id), ["db", "layout", "deleted", "written", "written_before"])
        rows: list[Any] = await pipeline.execute()
        return rows
