"""What reading costs the server."""

from __future__ import annotations

import numpy as np
import pytest
from redis.asyncio import Redis

from shared.catalog import Catalog, Database
from shared.errors import Gone
from shared.log.batch import EncodedEntry
from shared.log.log import Log
from shared.redis.keys import Keys
from tests.shared.log.appending import append, append_batches, make_collection

MIB = 1024 * 1024


async def test_a_page_of_large_entries_does_not_make_the_server_take_out_many_more(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database
) -> None:
    """While the script runs nobody else is served."""
    log = Log(redis, keys)
    made = await make_collection(catalog, database)
    payload = np.random.default_rng(1).bytes(2 * MIB)
    for _ in range(40):
        await append_batches(log, made, {0: [EncodedEntry(0, 1, payload)]})
    await redis.config_resetstat()
    before = (await redis.info("memory"))["used_memory"]
    read = await log.read(made.id, 0, bytes_max=8 * MIB)
    assert len(read.entries) == 4
    assert not read.complete
    assert (await redis.info("memory"))["used_memory_peak"] - before < 48 * MIB


async def test_pages_of_any_size_add_up_to_the_whole_log(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database
) -> None:
    log = Log(redis, keys)
    made = await make_collection(catalog, database)
    chance = np.random.default_rng(2)
    for _ in range(230):
        await append(log, made, [f"{number}" for number in range(1, 1 + int(chance.integers(1, 60)))])
    whole = (await log.read(made.id, 0)).entries
    for bytes_max in (1, 1000, 5000, 60_000, MIB):
        found, after, complete = [], "0-0", False
        while not complete:
            page = await log.read(made.id, 0, after, bytes_max)
            sizes = [len(entry.payload) for entry in page.entries]
            assert sum(sizes[:-1]) < bytes_max
            assert page.complete or sum(sizes) >= bytes_max
            found += page.entries
            after, complete = found[-1].id, page.complete
        assert found == whole


async def test_who_knows_everything_is_told_so_in_a_word_until_anything_changes(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database
) -> None:
    log = Log(redis, keys)
    made = await make_collection(catalog, database)
    await append(log, made, ["a"])
    known = await log.read(made.id, 0)
    assert await log.read(made.id, 0, known.entries[-1].id, MIB, known) is known
    await append(log, made, ["b"])
    later = await log.read(made.id, 0, known.entries[-1].id, MIB, known)
    last = later.entries[-1].id
    assert [entry.previous for entry in later.entries] == [known.entries[-1].id]
    assert await log.read(made.id, 0, last, None, later) is later
    assert (await log.read(made.id, 0, last)).entries == []
    for field, value in (("gen", 7), ("m:0", '{"version":1,"hash":"x","covers":3}'), ("deleted", 1)):
        await redis.hset(keys.state(made.id), field, value)
        changed = await log.read(made.id, 0, last, None, later)
        assert changed.mark != later.mark
        later = changed
    assert later.state.deleted
    await redis.delete(keys.state(made.id))
    with pytest.raises(Gone):
        await log.read(made.id, 0, last, None, later)
