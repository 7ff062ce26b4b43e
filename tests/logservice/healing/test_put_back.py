"""A Redis that came back with less: what witnesses hold is put back, and what nobody holds is named."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from logservice.restoring.reconcile import Reconciler
from shared import limits
from shared.catalog.collector import Collector
from shared.catalog.image import Images
from shared.catalog.witness_loop import remembers_nothing
from shared.errors import Unavailable
from shared.log.batch import build_batch, split_batch
from shared.log.heal import Heal, PutBackAppend, PutBackEntry
from shared.manifest.roots import RootStore, make_root
from shared.records.model import Op
from tests.append_only_file import newest
from tests.logservice.compacting import compact
from tests.logservice.healing.witnessed import Healed
from tests.shared.log.appending import everything, ids_of


@pytest.mark.parametrize("shards", [1, 3])
async def test_what_a_frontend_saw_acknowledged_is_put_back_as_it_was(cluster: Healed, shards: int) -> None:
    collection = await cluster.make("c", shards)
    async with cluster.witness("frontend") as witness:
        log, chance = cluster.log_of(witness), random.Random(shards)
        for number in range(100):
            ids = [f"{number}.{at}" for at in range(chance.randrange(1, 4))]
            await cluster.append(log, collection, ids, op=chance.choice([Op.UPSERT, Op.DELETE]))
        before = [(await cluster.log.read(collection.id, shard)).entries for shard in range(shards)]
        pairs = await cluster.redis.smembers(cluster.keys.metadata_keys(collection.id))
        await cluster.lose(40_000)
        lost = await everything(cluster.log, collection)
        assert 0 < len(lost) < len(cluster.written) - 10
        opened = await cluster.reconcile()
        assert [(await cluster.log.read(collection.id, shard)).entries for shard in range(shards)] == before
        assert await everything(cluster.log, collection) == cluster.written
        assert await cluster.redis.smembers(cluster.keys.metadata_keys(collection.id)) == pairs
        report = await cluster.report()
        assert report["lost"] == []
        assert report["put_back_ops"] == len(cluster.written) - len(lost)
        assert opened.epoch == 1  # what was begun before may have seen more than was put back
        assert await cluster.append(log, collection, ["after"])
        assert not [key async for key in cluster.redis.scan_iter(f"{cluster.keys.prefix}:{{witness}}:[se]*")]


async def test_a_request_that_is_repeated_after_its_append_was_put_back_is_answered_and_not_appended_again(
    cluster: Healed,
) -> None:
    collection = await cluster.make("c")
    async with cluster.witness("frontend") as witness:
        log = cluster.log_of(witness)
        done = await cluster.append(log, collection, ["a"], request_id="again")
        await cluster.lose(100)
        assert await everything(cluster.log, collection) == {}
        await cluster.reconcile()
        assert await cluster.append(log, collection, ["a"], request_id="again") == done
    assert await everything(cluster.log, collection) == {1: "a"}


async def test_what_one_worker_read_of_each_shard_makes_a_whole_append_again(cluster: Healed) -> None:
    """Nobody else knows of it: the frontend is gone."""
    collection = await cluster.make("c", 2)
    async with cluster.witness("one") as one, cluster.witness("two") as two:
        for number in range(30):
            await cluster.append(cluster.log, collection, [f"{number}.{at}" for at in range(6)])
        await cluster.log_of(one).read(collection.id, 0)
        await cluster.log_of(two).read(collection.id, 1)
        await cluster.lose(20_000)
        assert len(await everything(cluster.log, collection)) < len(cluster.written)
        await cluster.reconcile()
    assert await everything(cluster.log, collection) == cluster.written


async def test_what_nobody_holds_is_named_and_what_comes_behind_it_is_put_back(cluster: Healed) -> None:
    collection, whole = await cluster.make("c"), await cluster.make("whole")
    async with cluster.witness("one") as one, cluster.witness("small", bytes_max=1) as small:
        kept = await cluster.append(cluster.log_of(one), collection, ["kept"])
        await cluster.append(cluster.log_of(one), whole, ["w"])
        await cluster.append(cluster.log_of(one), collection, ["a", "b"])
        lost = await cluster.append(cluster.log_of(small), collection, ["c", "d", "e"])
        unseen = await cluster.append(cluster.log, collection, ["f"])
        await cluster.append(cluster.log_of(one), collection, ["g"])
        await cluster.lose(100)
        before = await everything(cluster.log, collection)
        cut_to = max(before, default=0) + 1
        assert cut_to <= unseen.head
        await cluster.reconcile()
    found = await everything(cluster.log, collection)
    gone = range(max(lost.first, cut_to), unseen.head)
    assert found == {position: id_ for position, id_ in found.items() if position not in gone}
    named = {
        position: each["acknowledged"]
        for each in (await cluster.report())["lost"]
        for position in range(each["first"], each["end"])
    }
    assert named == {position: position < lost.head for position in gone}
    assert found[unseen.head] == "g"
    assert kept.first == 1


async def test_where_redis_has_everything_nothing_is_done_and_nobody_waits(cluster: Healed) -> None:
    collection = await cluster.make("c")
    async with cluster.witness("one") as one, cluster.witness("two"):
        await cluster.append(cluster.log_of(one), collection, ["a"])
        await asyncio.to_thread(cluster.server.restart)
        began_s = asyncio.get_running_loop().time()
        opened = await cluster.reconcile(wait_s=30.0)
        assert asyncio.get_running_loop().time() - began_s < 5
        assert opened.epoch == 0
        assert await cluster.report() == {}
    assert await everything(cluster.log, collection) == cluster.written


async def test_a_server_that_restarts_again_at_once_is_told_again(cluster: Healed) -> None:
    collection = await cluster.make("c")
    async with cluster.witness("one") as one, cluster.witness("two") as two:
        for number in range(4):
            await cluster.append(cluster.log_of(one), collection, [f"a{number}"])
            await cluster.append(cluster.log_of(two), collection, [f"b{number}"])
            await asyncio.to_thread(cluster.server.restart)
            await asyncio.sleep(0.06 * number)  # witnesses are at another point each time
            await cluster.lose(1500)
            began_s = asyncio.get_running_loop().time()
            await cluster.reconcile(wait_s=30.0)
            assert asyncio.get_running_loop().time() - began_s < 10
            assert await everything(cluster.log, collection) == cluster.written


async def test_a_witness_that_is_dead_is_waited_for_no_longer_than_allowed(cluster: Healed) -> None:
    collection = await cluster.make("c")
    async with cluster.witness("alive") as alive:
        async with cluster.witness("dead"):
            pass  # it did not say that it is going
        await cluster.append(cluster.log_of(alive), collection, ["a"])
        await cluster.lose(100)
        began_s = asyncio.get_running_loop().time()
        await cluster.reconcile(wait_s=0.5)
        assert asyncio.get_running_loop().time() - began_s < 10
    assert await everything(cluster.log, collection) == {1: "a"}


async def test_a_witness_that_has_begun_anew_is_not_waited_for(cluster: Healed) -> None:
    async with cluster.witness("alive"), cluster.witness("killed"):
        pass
    await asyncio.to_thread(cluster.server.restart)
    began_s = asyncio.get_running_loop().time()
    for name in ("alive", "killed"):  # as a process does that starts under the name of one that was killed
        await remembers_nothing(cluster.server.url, cluster.keys, name)
    await cluster.reconcile(wait_s=30.0)
    assert asyncio.get_running_loop().time() - began_s < 10


async def test_what_was_compacted_and_trimmed_before_the_loss_is_not_lost(cluster: Healed) -> None:
    collection = await cluster.make("c")
    async with cluster.witness("one", bytes_max=1) as one:
        size = newest(cluster.server.directory).stat().st_size
        await cluster.append(cluster.log_of(one), collection, ["a", "b"])
        pointer = await compact(cluster.log, cluster.objects, collection.id)
        await cluster.log.trim(collection.id, 0, pointer, 0)
        after = await cluster.append(cluster.log_of(one), collection, ["c"])
        await cluster.lose(newest(cluster.server.directory).stat().st_size - size)
        assert (await cluster.log.read(collection.id, 0)).state.head == 1
        await cluster.reconcile()
    report = await cluster.report()
    assert [(each["first"], each["end"]) for each in report["lost"]] == [(after.first, after.head)]
    assert (await cluster.log.read(collection.id, 0)).state.pointer == pointer


@pytest.mark.parametrize("shards", [1, 2])
async def test_what_was_put_back_once_is_put_back_after_the_next_loss_too(cluster: Healed, shards: int) -> None:
    collection = await cluster.make("c", shards)
    async with cluster.witness("one") as one:
        log = cluster.log_of(one)
        await cluster.append(log, collection, ["before"])
        size = newest(cluster.server.directory).stat().st_size
        for number in range(5):
            await cluster.append(log, collection, [f"{number}-{at}" for at in range(4)])
        for epoch in (1, 2):
            await cluster.lose(newest(cluster.server.directory).stat().st_size - size)
            assert len(await everything(cluster.log, collection)) == 1
            assert (await cluster.reconcile()).epoch == epoch
            assert await everything(cluster.log, collection) == cluster.written
            async with asyncio.timeout(5):
                while one.of_earlier_epochs(epoch):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


async def test_a_gap_that_the_manifests_of_all_shards_cover_is_no_loss_although_no_root_names_them(
    cluster: Healed,
) -> None:
    collection = await cluster.make("c", 2)
    begin = make_root(collection.id, 0, 1, collection.layout, [None, None], "test", 0.0)
    await RootStore(cluster.objects).create(begin)
    async with cluster.witness("one") as one, cluster.witness("small", bytes_max=1) as small:
        size = newest(cluster.server.directory).stat().st_size
        await cluster.append(cluster.log_of(small), collection, [f"a{number}" for number in range(20)])
        pointers = [await compact(cluster.log, cluster.objects, collection.id, shard) for shard in (0, 1)]
        after = await cluster.append(cluster.log_of(one), collection, [f"b{number}" for number in range(9)])
        await cluster.lose(newest(cluster.server.directory).stat().st_size - size)
        assert (await cluster.log.read(collection.id, 0)).state.head == 1
        await cluster.reconcile()
    assert [(await cluster.log.read(collection.id, shard)).state.pointer for shard in (0, 1)] == pointers
    assert sorted(await everything(cluster.log, collection)) == list(range(after.first, after.head))
    assert (await cluster.report())["lost"] == []
    newest_root = await RootStore(cluster.objects).newest(collection.id)
    assert newest_root is not None
    assert newest_root.pointers == pointers  # the next loss begins from them


async def test_a_collection_that_was_deleted_loses_nothing(cluster: Healed) -> None:
    collection = await cluster.make("c")
    async with cluster.witness("one", bytes_max=1) as one:
        await cluster.append(cluster.log_of(one), collection, ["a"])
        database = await cluster.catalog.databases.get("default_tenant", "default_database")
        assert database is not None
        await cluster.catalog.collections.delete(database, "c")
        await Collector(cluster.redis, cluster.keys, cluster.catalog).collect_deleted()
        assert not await cluster.redis.exists(cluster.keys.state(collection.id))
        await asyncio.to_thread(cluster.server.restart)
        await cluster.reconcile()
    assert (await cluster.report()).get("lost", []) == []


async def test_another_log_service_goes_on_where_one_died(cluster: Healed, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = await cluster.make("c")
    async with cluster.witness("one") as one, cluster.witness("small", bytes_max=1) as small:
        await cluster.append(cluster.log_of(one), collection, ["a"])
        lost = await cluster.append(cluster.log_of(small), collection, ["b"])
        await cluster.append(cluster.log_of(one), collection, ["c"])
        await cluster.lose(100)

        class Dies(Exception):
            pass

        async def dies(*_: object) -> None:
            raise Dies

        with monkeypatch.context() as patched:
            patched.setattr(Reconciler, "_verify", dies)
            with pytest.raises(Dies):
                await cluster.reconcile()
        opened = await cluster.reconcile()
        assert opened.epoch == 1
        found = await everything(cluster.log, collection)
        if lost.first not in found:
            assert [(each["first"], each["end"]) for each in (await cluster.report())["lost"]] == [
                (lost.first, lost.head)
            ]
        assert found[lost.head] == "c"


async def test_operations_of_an_earlier_layout_are_divided_among_the_present_shards(cluster: Healed) -> None:
    """Redis is back before a switch to more shards, which the append came after; or the other way round."""
    collection = await cluster.make("c", 2)
    async with cluster.witness("one") as one:
        await cluster.append(cluster.log_of(one), collection, [f"a{at}" for at in range(8)])
        await cluster.lose(100)
        assert await everything(cluster.log, collection) == {}
        await cluster.redis.hset(cluster.keys.state(collection.id), "layout", "2 3")
        await cluster.reconcile()
    found: dict[int, str] = {}
    for shard in (2, 3, 4):
        found |= ids_of((await cluster.log.read(collection.id, shard)).entries)
    assert found == cluster.written


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("compacted", [True, False])
async def test_a_redis_that_lost_everything_gets_back_what_no_manifest_has(
    cluster: Healed, shards: int, *, compacted: bool
) -> None:
    collection = await cluster.make("c", shards)
    await cluster.snapshot()
    async with cluster.witness("one") as one:
        log = cluster.log_of(one)
        for number in range(5):
            await cluster.append(log, collection, [f"{number}.{at}" for at in range(4)])
        if compacted:
            for shard in range(shards):
                await compact(cluster.log, cluster.objects, collection.id, shard)
        head = (await cluster.log.read(collection.id, 0)).state.head
        for number in range(5, 9):
            await cluster.append(log, collection, [f"{number}.{at}" for at in range(4)], request_id=f"r{number}")
        await asyncio.to_thread(cluster.server.lose_everything)
        await cluster.reconcile()
        assert (await cluster.append(log, collection, ["x"], request_id="r5")).first == head
        assert (await cluster.append(log, collection, ["after"])).first >= limits.BACKLOG_OPS_CEILING
    found: dict[int, str] = {}
    for shard in range(shards):
        read = await cluster.log.read(collection.id, shard)
        assert read.complete
        found |= ids_of(read.entries)
    del cluster.written[head]  # the repeated request was not appended again
    begins = head if compacted else 1
    expected = {position: id_ for position, id_ in cluster.written.items() if position >= begins}
    assert {position: id_ for position, id_ in found.items() if position in expected} == expected
    assert (await cluster.report())["lost"] == []


@pytest.mark.parametrize("shards", [1, 2])
async def test_a_redis_of_two_epochs_ago_gets_back_what_was_written_since_and_no_manifest_has(
    cluster: Healed, tmp_path: Path, shards: int
) -> None:
    """Its own log is of an epoch that was given up, and gives way to what the bucket has."""
    collection = await cluster.make("c", shards)
    await cluster.append(cluster.log, collection, [f"old{number}" for number in range(8)])
    await cluster.snapshot()
    await asyncio.to_thread(cluster.server.kill)
    shutil.copytree(cluster.server.directory, tmp_path / "older")
    await asyncio.to_thread(cluster.server.start)
    await cluster.reconcile()
    for shard in range(shards):
        await compact(cluster.log, cluster.objects, collection.id, shard)
    await asyncio.to_thread(cluster.server.lose_everything)
    assert (await cluster.reconcile()).epoch == 1
    cluster.written.clear()
    async with cluster.witness("one") as one:
        for number in range(4):
            await cluster.append(cluster.log_of(one), collection, [f"{number}-{at}" for at in range(4)])
        await asyncio.to_thread(cluster.server.kill)
        shutil.rmtree(cluster.server.directory)
        shutil.copytree(tmp_path / "older", cluster.server.directory)
        await asyncio.to_thread(cluster.server.start)
        assert (await cluster.reconcile()).epoch == 2
    found = await everything(cluster.log, collection)
    assert {position: id_ for position, id_ in found.items() if position in cluster.written} == cluster.written
    assert (await cluster.report())["put_back_ops"] == len(cluster.written)


async def test_a_redis_that_lost_everything_names_what_nobody_holds(cluster: Healed) -> None:
    collection = await cluster.make("c")
    await cluster.snapshot()
    async with cluster.witness("one") as one, cluster.witness("small", bytes_max=1) as small:
        await cluster.append(cluster.log_of(one), collection, ["a"])
        lost = await cluster.append(cluster.log_of(small), collection, ["b", "c"])
        await cluster.append(cluster.log_of(one), collection, ["d"])
        await asyncio.to_thread(cluster.server.lose_everything)
        await cluster.reconcile()
    assert ids_of((await cluster.log.read(collection.id, 0)).entries) == {1: "a", 4: "d"}
    [named] = (await cluster.report())["lost"]
    assert (named["first"], named["end"], named["acknowledged"]) == (lost.first, lost.head, True)


async def test_a_log_service_that_died_between_two_appends_leaves_the_gap_between_them_to_be_named(
    cluster: Healed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was put back has raised the head beyond the gap, and what may rest on it is not to come back either."""
    collection = await cluster.make("c")
    async with cluster.witness("one") as one, cluster.witness("small", bytes_max=1) as small:
        size = newest(cluster.server.directory).stat().st_size
        lost = await cluster.append(cluster.log_of(small), collection, ["lost"])
        kept = await cluster.append(cluster.log_of(one), collection, ["kept"])
        await cluster.append(cluster.log, collection, ["rests on it"])
        entries = (await cluster.log.read(collection.id, 0)).entries
        one.read(collection.id, 0, entries[-1:])  # whether it rests on something is not known
        await cluster.lose(newest(cluster.server.directory).stat().st_size - size)
        assert await everything(cluster.log, collection) == {}
        put_back = Heal.put_back

        async def dies(heal: Heal, append: PutBackAppend) -> bool:
            await put_back(heal, append)
            raise Unavailable("the log service was killed")

        with monkeypatch.context() as patched:
            patched.setattr(Heal, "put_back", dies)
            with pytest.raises(Unavailable):
                await cluster.reconcile()
        await cluster.reconcile()
    assert await everything(cluster.log, collection) == {kept.first: "kept"}
    report = await cluster.report()
    assert report["put_back_ops"] == 1
    assert [(each["first"], each["end"]) for each in report["lost"]] == [
        (lost.first, lost.head),
        (kept.head, kept.head + 1),
    ]


async def test_a_log_service_that_slept_through_a_restoration_puts_nothing_back(cluster: Healed) -> None:
    collection = await cluster.make("c")
    heal, images = Heal(cluster.redis, cluster.keys), Images(cluster.redis, cluster.keys, cluster.catalog)
    [entry] = split_batch(build_batch(Op.UPSERT, ["a"], np.zeros((1, 2), np.float32)), collection.layout)[0]
    append = PutBackAppend(
        collection_id=collection.id, first=1, end=2, time_ms=0, request_id="", epoch=0, dimension=2, pairs=[],
        entries=[PutBackEntry(0, "1-0", 1, entry.checksum, entry.payload)],
    )  # fmt: skip
    await images.raise_heads({collection.id: 1}, 1)
    with pytest.raises(Unavailable):
        await heal.put_back(append)
    assert await everything(cluster.log, collection) == {}


async def test_what_is_put_back_continues_a_chain_of_which_the_state_has_lost_the_end(cluster: Healed) -> None:
    collection = await cluster.make("c")
    async with cluster.witness("frontend") as witness:
        log = cluster.log_of(witness)
        for number in range(20):
            await cluster.append(log, collection, [str(number)])
        before = (await cluster.log.read(collection.id, 0)).entries
        await cluster.lose(3_000)
        fields = [f"{name}:0" for name in ("tail", "chain", "ops", "bytes")]
        await cluster.redis.hdel(cluster.keys.state(collection.id), *fields)
        await cluster.reconcile()
    assert (await cluster.log.read(collection.id, 0)).entries == before
