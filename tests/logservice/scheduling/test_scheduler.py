"""Scheduling and trimming, on real servers and a clock of our own."""

import pytest
from pyroaring import BitMap
from redis.asyncio import Redis

from logservice.scheduling.policy import Policy
from logservice.scheduling.rounds import Rounds
from logservice.scheduling.scheduler import Scheduler
from logservice.trimming.seal import Sealer
from logservice.trimming.trim import RETRY_S, Trimmer
from shared.catalog import Catalog, Database
from shared.catalog.damage import DamageReporter, Damages
from shared.catalog.history import Histories
from shared.errors import Corrupt
from shared.log.cuts import Cuts
from shared.log.jobs import Job, Jobs
from shared.log.log import Log
from shared.log.naming import state_name
from shared.log.state import Pointer
from shared.manifest.model import SegmentRef
from shared.manifest.roots import RootStore
from shared.objects.keys import manifest_key, segment_path
from shared.objects.port import ObjectStore
from shared.redis.keys import Keys
from shared.segment.format import FileInfo, SegmentInfo
from shared.vectors.space import Space
from tests.logservice.compacting import compact, publish
from tests.logservice.conftest import SteppedClock
from tests.shared.log.appending import append, make_collection

POLICY = Policy(ops=100, bytes=10**9, quiet_s=0.6, age_s=10.0)


@pytest.fixture
def jobs(redis: Redis, keys: Keys) -> Jobs:
    return Jobs(redis, keys)


@pytest.fixture
def trimmer(
    redis: Redis, keys: Keys, log: Log, objects: ObjectStore, clock: SteppedClock, reporter: DamageReporter
) -> Trimmer:
    return Trimmer(log, objects, clock, 0, Sealer(log, objects, Histories(redis, keys, 0.0)), reporter)


@pytest.fixture
def reporter(redis: Redis, keys: Keys, clock: SteppedClock) -> DamageReporter:
    return DamageReporter(Damages(redis, keys), "me", clock)


@pytest.fixture
def scheduler(
    redis: Redis,
    keys: Keys,
    catalog: Catalog,
    log: Log,
    jobs: Jobs,
    objects: ObjectStore,
    clock: SteppedClock,
    trimmer: Trimmer,
) -> Scheduler:
    rounds = Rounds(Cuts(redis, keys), objects, clock)
    return Scheduler(catalog, log, jobs, rounds, POLICY, clock, trimmer.add)


async def test_a_small_write_is_due_once_it_is_left_alone(
    catalog: Catalog, database: Database, log: Log, jobs: Jobs, scheduler: Scheduler, clock: SteppedClock
) -> None:
    made = await make_collection(catalog, database)
    await append(log, made, ["a"])
    await jobs.mark_dirty([(made.id, 0)])
    await scheduler.tick()
    assert await jobs.claim("h", 30) is None
    clock.time_s += 0.5
    await append(log, made, ["b"])
    await scheduler.tick()
    clock.time_s += 0.5
    await scheduler.tick()
    assert await jobs.claim("h", 30) is None  # written to again meanwhile
    clock.time_s += 0.2
    await scheduler.tick()
    assert await jobs.claim("h", 30) == Job(made.id, 0)


async def test_many_shards_of_a_tenant_do_not_come_before_the_only_one_of_another(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database, log: Log, jobs: Jobs, objects: ObjectStore,
    clock: SteppedClock, trimmer: Trimmer,
) -> None:  # fmt: skip
    tenants: dict[str, str] = {}
    rounds = Rounds(Cuts(redis, keys), objects, clock)
    scheduler = Scheduler(catalog, log, jobs, rounds, POLICY, clock, trimmer.add, lambda each: tenants.get(each, ""))
    for number in range(12):
        made = await make_collection(catalog, database, f"noisy-{number}")
        tenants[made.id] = "noisy"
        await append(log, made, [str(row) for row in range(20)])
        await jobs.mark_dirty([(made.id, 0)])
    await scheduler.tick()
    clock.time_s += 5.0
    quiet = await make_collection(catalog, database, "quiet")
    tenants[quiet.id] = "quiet"
    await append(log, quiet, ["a"])
    await jobs.mark_dirty([(quiet.id, 0)])
    await scheduler.tick()
    clock.time_s += 1.0
    await scheduler.tick()
    claimed = [await jobs.claim("h", 30) for _ in range(13)]
    assert claimed.index(Job(quiet.id, 0)) <= 1


async def test_a_fork_gets_its_first_root_as_soon_as_its_shards_are_marked(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database, log: Log, jobs: Jobs, scheduler: Scheduler,
    objects: ObjectStore,
) -> None:  # fmt: skip
    """All of it may be compacted: then nothing is due, and nothing but the root is missing."""
    made = await make_collection(catalog, database, shards=2)
    await append(log, made, [str(i) for i in range(20)])
    await redis.hdel(keys.state(made.id), "cut")  # a fork has none
    pointers = [await compact(log, objects, made.id, shard) for shard in range(2)]
    for shard, pointer in enumerate(pointers):
        await log.trim(made.id, shard, pointer, 0)
    await jobs.mark_dirty([(made.id, 0), (made.id, 1)])
    await scheduler.tick()
    root = await RootStore(objects).newest(made.id)
    assert root is not None
    assert root.pointers == pointers


async def test_a_large_backlog_is_due_at_once(
    catalog: Catalog, database: Database, log: Log, jobs: Jobs, scheduler: Scheduler
) -> None:
    made = await make_collection(catalog, database)
    await append(log, made, [str(i) for i in range(100)])
    await jobs.mark_dirty([(made.id, 0)])
    await scheduler.tick()
    assert await jobs.claim("h", 30) == Job(made.id, 0)


async def test_a_trickle_is_due_when_it_is_old(
    catalog: Catalog, database: Database, log: Log, jobs: Jobs, scheduler: Scheduler, clock: SteppedClock
) -> None:
    made = await make_collection(catalog, database)
    began = clock.time_s
    while await jobs.claim("h", 30) is None:
        await append(log, made, ["a"])
        await jobs.mark_dirty([(made.id, 0)])
        await scheduler.tick()
        clock.time_s += 0.25
    assert clock.time_s - began == pytest.approx(POLICY.age_s, abs=0.5)


async def test_a_lost_hint_is_made_good_by_the_sweep(
    catalog: Catalog, database: Database, log: Log, jobs: Jobs, scheduler: Scheduler, clock: SteppedClock
) -> None:
    written = await make_collection(catalog, database, "written", shards=2)
    await make_collection(catalog, database, "empty")
    await append(log, written, [str(i) for i in range(20)])
    await scheduler.sweep()
    await scheduler.tick()
    clock.time_s += 1
    await scheduler.tick()
    claimed = {await jobs.claim("h", 30), await jobs.claim("h", 30)}
    assert claimed == {Job(written.id, 0), Job(written.id, 1)}
    assert await jobs.claim("h", 30) is None


async def test_what_a_compactor_holds_or_has_compacted_is_not_queued(
    catalog: Catalog,
    database: Database,
    log: Log,
    jobs: Jobs,
    scheduler: Scheduler,
    trimmer: Trimmer,
    objects: ObjectStore,
    clock: SteppedClock,
) -> None:
    made = await make_collection(catalog, database)
    await append(log, made, [str(i) for i in range(200)])
    await jobs.mark_dirty([(made.id, 0)])
    await scheduler.tick()
    job = await jobs.claim("h", 30)
    assert job is not None
    await scheduler.tick()
    assert await jobs.counts() == (0, 1)
    await compact(log, objects, made.id)
    await jobs.finish(job, "h")
    await append(log, made, ["new"])
    await scheduler.tick()  # the backlog still counts 201, but 200 of them are compacted
    assert await jobs.counts() == (0, 0)
    await trimmer.trim_waiting()
    assert (await log.read(made.id, 0)).state.ops_backlog == 1
    clock.time_s += 1
    await scheduler.tick()
    assert await jobs.counts() == (1, 0)


async def test_a_deleted_collection_is_forgotten(
    catalog: Catalog, database: Database, log: Log, jobs: Jobs, scheduler: Scheduler, clock: SteppedClock
) -> None:
    made = await make_collection(catalog, database)
    await append(log, made, ["a"])
    await jobs.mark_dirty([(made.id, 0), ("nobody", 3)])
    await scheduler.tick()
    await catalog.collections.delete(database, "numbers")
    clock.time_s += 5
    await scheduler.tick()
    assert await jobs.counts() == (0, 0)


async def test_trimming_needs_the_manifest_read_back(
    catalog: Catalog,
    database: Database,
    log: Log,
    jobs: Jobs,
    scheduler: Scheduler,
    trimmer: Trimmer,
    objects: ObjectStore,
    clock: SteppedClock,
    reporter: DamageReporter,
) -> None:
    """Promise 2."""
    made = await make_collection(catalog, database)
    await append(log, made, ["a", "b"])
    pointer = await publish(objects, made.id, 0, 3, None)
    await log.commit(made.id, 0, None, pointer, 0)
    key = manifest_key(made.id, 0, 1)
    whole = await objects.get(key)
    await jobs.mark_dirty([(made.id, 0)])
    for damaged in (whole[:-10], whole.replace(b'"covers": 3', b'"covers": 2')):
        await objects.put(key, damaged)
        await scheduler.tick()
        await trimmer.trim_waiting()
        assert len((await log.read(made.id, 0)).entries) == 1
        clock.time_s += RETRY_S
    await objects.delete([key])
    await scheduler.tick()
    await trimmer.trim_waiting()
    assert len((await log.read(made.id, 0)).entries) == 1
    assert list(reporter.reported) == [key]
    await objects.put(key, whole)
    clock.time_s += RETRY_S
    await scheduler.tick()
    await trimmer.trim_waiting()
    assert (await log.read(made.id, 0)).entries == []
    assert list(reporter.reported) == []


async def test_a_pointer_that_disagrees_with_its_manifest_trims_nothing(
    catalog: Catalog, database: Database, log: Log, trimmer: Trimmer, objects: ObjectStore
) -> None:
    made = await make_collection(catalog, database)
    await append(log, made, ["a"])
    await append(log, made, ["b"])
    true = await publish(objects, made.id, 0, 2, None)
    false = Pointer(true.version, true.hash, 3)
    await log.commit(made.id, 0, None, false, 0)
    trimmer.add((made.id, 0), false)
    await trimmer.trim_waiting()
    assert len((await log.read(made.id, 0)).entries) == 2


async def test_trimming_needs_the_files_of_the_manifest_in_full_length(
    catalog: Catalog, database: Database, log: Log, trimmer: Trimmer, objects: ObjectStore, clock: SteppedClock
) -> None:
    """Promise 2."""
    made = await make_collection(catalog, database)
    await append(log, made, ["a"])
    path = segment_path(made.id, 0, "s1")
    info = SegmentInfo("s1", path, 1, 2, Space.L2, False, [FileInfo("records.arrow", 4, "")], "a", "a")
    pointer = await publish(objects, made.id, 0, 2, None, [SegmentRef.of(info, BitMap())])
    await log.commit(made.id, 0, None, pointer, 0)
    for content in (None, b"cut"):
        if content is not None:
            await objects.put(f"{path}/records.arrow", content)
        trimmer.add((made.id, 0), pointer)
        await trimmer.trim_waiting()
        assert len((await log.read(made.id, 0)).entries) == 1
        clock.time_s += RETRY_S
    await objects.put(f"{path}/records.arrow", b"full")
    trimmer.add((made.id, 0), pointer)
    await trimmer.trim_waiting()
    assert (await log.read(made.id, 0)).entries == []


@pytest.mark.parametrize("field", ["m:0", "ops:0", "next", "cut"])
async def test_a_state_with_a_damaged_field_stops_its_own_collection_alone(
    catalog: Catalog,
    database: Database,
    log: Log,
    jobs: Jobs,
    scheduler: Scheduler,
    clock: SteppedClock,
    redis: Redis,
    keys: Keys,
    field: str,
) -> None:
    damaged, sound = [await make_collection(catalog, database, name) for name in ("damaged", "sound")]
    for collection in (damaged, sound):
        await append(log, collection, ["a"])
    await jobs.mark_dirty([(damaged.id, 0), (sound.id, 0)])
    await scheduler.tick()
    await redis.hset(keys.state(damaged.id), field, "no such thing")
    for _ in range(2):
        clock.time_s += 1
        await scheduler.tick()
        await scheduler.sweep()
    assert await jobs.claim("h", 30) == Job(sound.id, 0)
    assert await jobs.claim("h", 30) is None
    for read in (log.read(damaged.id, 0), catalog.collections.get_by_id(database, damaged.id)):
        with pytest.raises(Corrupt) as failure:
            await read
        assert failure.value.name == state_name(damaged.id)
    assert await catalog.collections.get_by_id(database, sound.id) is not None
