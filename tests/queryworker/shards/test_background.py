"""What a shard does in the background: graphs over its tail, loads that outlive the shard's place in memory, and checks
that reads do not wait for.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from queryworker.shards import shard as shard_module
from queryworker.shards.shard import GRAPH_RETRY_S
from queryworker.view import tail_graphs
from queryworker.view.shard_view import ShardView
from shared.records.model import ReadLevel
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.queryworker.clocks import StillClock
from tests.queryworker.world import adds, open_world
from tests.redis_server import RedisServer


async def test_a_graph_that_cannot_be_built_is_reported_and_tried_again_after_a_while(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads go on: rows without a graph are scanned."""
    monkeypatch.setattr(tail_graphs, "STEP_ROWS", 20)
    tries = 0

    def fails(_view: ShardView) -> None:
        nonlocal tries
        tries += 1
        raise MemoryError("no memory left")

    async with open_world(valkey_server.url, keys, tmp_path) as world:
        world.worker.clock = clock = StillClock()
        with capture_logs() as lines, monkeypatch.context() as patched:
            patched.setattr(ShardView, "build_graph_step", fails)
            for number in range(3):
                await world.write(adds(30 * number, 30))
                assert await world.count() == 30 * (number + 1)
                build = world.served._graph_build
                assert (build is not None) == (number == 0)
                if build is not None:
                    await build
        assert tries == 1
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["tail_graph_failed"]
        clock.time_s += GRAPH_RETRY_S
        assert await world.count() == 90
        build = world.served._graph_build
        assert build is not None
        await build
        view = world.served.views.newest
        assert view is not None
        assert sum(part.rows for part in view.read_view().parts if part.graph is not None) == 80


async def test_closing_ends_the_load_of_a_shard_that_was_evicted_meanwhile(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 5))
        await world.count()
        entered = asyncio.Event()

        async def never_ends(*_args: object) -> object:
            entered.set()
            return await asyncio.Event().wait()

        monkeypatch.setattr(world.worker.manifests, "load", never_ends)
        await world.compact()
        await world.count()  # notices the manifest
        await entered.wait()
        load = world.served.loader.task
        assert load is not None
        world.worker.shards._idle_max_s = -1.0
        world.worker.shards.evict()
        assert not load.done()
        await world.worker.shards.close()
        assert load.cancelled()


async def test_reads_of_what_is_compacted_do_not_pile_up_while_the_log_does_not_answer(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_module, "INDEX_ONLY_WAIT_S", 0.001)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 5))
        await world.compact()
        await world.count()
        await world.load_newest_manifests()
        compacted = messages.CountRequest(world.shard(read_level=ReadLevel.INDEX_ONLY))
        world.worker.log.open.clear()
        for _ in range(50):
            assert (await world.worker.count(compacted)).count == 5
        assert len(world.served._background) == 2, "one check that the log does not answer, one that waits for its end"
        await world.write(adds(5, 5))
        await world.compact()
        monkeypatch.undo()
        answers = [asyncio.create_task(world.worker.count(compacted)) for _ in range(3)]
        await asyncio.sleep(0)
        world.worker.log.open.set()
        assert [(await answer).count for answer in answers] == [10] * 3
        assert not world.served._background
