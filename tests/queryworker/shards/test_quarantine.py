"""A damaged log entry: reads of its shard say so, everything else goes on, and nothing is tried over and over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from compactor.compaction import Ending
from shared.catalog.damage import DamageKind
from shared.errors import Damaged
from shared.log.naming import entry_name
from shared.log.state import Entry
from shared.log.substitutes import Substitutes
from shared.log.verification import DamagedEntry
from shared.records.model import ReadLevel
from shared.redis.keys import Keys
from shared.rpc import messages
from tests.queryworker.truth import assert_get
from tests.queryworker.world import World, adds, open_world
from tests.redis_server import RedisServer
from tests.shared.log.damaging import replace_entry

KINDS = [{"d": b"garbage"}, {"n": b"17"}, {"gone": b""}]


@pytest.fixture
async def world(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(valkey_server.url, keys, tmp_path) as opened:
        yield opened


async def index_only(world: World) -> int:
    request = messages.CountRequest(world.shard(read_level=ReadLevel.INDEX_ONLY))
    return (await world.worker.count(request)).count


async def damaged(world: World, keys: Keys, kind: dict[str, bytes], *, warm: bool) -> Entry:
    """A shard with 5 compacted records and 3 more in the log, then the entry at position 9, damaged in the way `kind`,
    then another entry. The worker has read it before, up to the damage, if it is warm.
    """
    await world.write(adds(0, 5))
    await world.compact()
    await world.write(adds(5, 3))
    if warm:
        assert await world.count() == 8
    await world.write(adds(8, 2))
    await world.write(adds(10, 1))
    [_, entry, _] = (await world.log.read(world.collection, 0, "5-0")).entries
    await replace_entry(world.redis, keys.log(world.collection, 0), 1, **kind)
    assert entry.id == "9-0"
    return entry


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("kind", KINDS)
async def test_reads_say_what_is_damaged_and_reads_of_what_is_compacted_go_on(
    world: World, keys: Keys, kind: dict[str, bytes], *, warm: bool
) -> None:
    entry = await damaged(world, keys, kind, warm=warm)
    for _ in range(2):
        with pytest.raises(Damaged, match=entry_name(world.collection, 0, "9-0")):
            await world.count()
        assert await index_only(world) == 5
    [reported] = await world.reported()
    assert (reported.name, reported.kind) == (entry_name(world.collection, 0, "9-0"), DamageKind.ENTRY)
    assert (await world.worker.count(messages.CountRequest(world.shard(as_of=9)))).count == 8
    assert await Substitutes(world.redis, keys).put_back(world.collection, 0, entry)
    world.served._tailer._damage = None  # as after a second
    await assert_get(world, world.state)
    assert await world.reported() == []


async def test_a_damaged_shard_is_not_read_again_for_every_request(world: World, keys: Keys) -> None:
    await damaged(world, keys, {"d": b"garbage"}, warm=True)
    before = world.worker.log.reads
    for _ in range(50):
        with pytest.raises(Damaged):
            await world.count()
    assert world.worker.log.reads - before <= 3


@pytest.mark.parametrize("kind", KINDS)
async def test_compaction_stops_before_the_damage_and_goes_on_once_it_is_skipped(
    world: World, keys: Keys, kind: dict[str, bytes]
) -> None:
    await damaged(world, keys, kind, warm=True)
    assert await world.compactor.compact(world.collection, 0) is Ending.PARTIAL
    for _ in range(2):
        with pytest.raises(DamagedEntry):
            await world.compactor.compact(world.collection, 0)
    [state] = await world.log.states([(world.collection, 0)])
    assert state is not None
    assert state.pointer is not None
    assert state.pointer.covers == 9
    with pytest.raises(Damaged):
        await world.count()
    loading = world.served.loader.task
    if loading is not None:
        await loading
    assert await index_only(world) == 8
    assert await Substitutes(world.redis, keys).skip(world.collection, 0, "9-0")
    world.served._tailer._damage = None
    assert await world.count() == 9  # two records are lost, the one behind them is not
    await world.compact()
    await world.load_newest_manifests()
    assert await index_only(world) == await world.count() == 9


async def test_a_shard_whose_log_holds_nothing_but_a_skipped_entry_is_compacted_and_trimmed(
    world: World, keys: Keys
) -> None:
    await world.write(adds(0, 2))
    await replace_entry(world.redis, keys.log(world.collection, 0), 0, d=b"garbage")
    assert await Substitutes(world.redis, keys).skip(world.collection, 0, "1-0")
    assert await world.count() == 0
    await world.compact()
    [state] = await world.log.states([(world.collection, 0)])
    assert state is not None
    assert not state.uncompacted
    assert state.ops_backlog == 0
    assert await world.count() == 0


async def test_an_entry_that_fits_and_does_not_decode_is_quarantined_too(
    world: World, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.write(adds(0, 2))
    await world.write(adds(2, 2))
    monkeypatch.setattr("shared.log.batch.pa.ipc.read_record_batch", _reads_but_once())
    with pytest.raises(Damaged, match=entry_name(world.collection, 0, "3-0")):
        await world.count()
    monkeypatch.undo()
    assert (await world.worker.count(messages.CountRequest(world.shard(as_of=3)))).count == 2
    world.served._tailer._damage = None
    assert await world.count() == 4


def _reads_but_once() -> object:
    import pyarrow as pa

    real, calls = pa.ipc.read_record_batch, [0]

    def read(*arguments: object) -> object:
        calls[0] += 1
        if calls[0] == 2:
            raise pa.ArrowInvalid("bad offsets")
        return real(*arguments)

    return read
