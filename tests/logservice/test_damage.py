"""What the log service does about what was found damaged."""

from redis.asyncio import Redis

from logservice.damage import REWRITE_AGAIN_S, DamageWatch, ShardId, to_rewrite
from shared.catalog import Catalog, Database
from shared.catalog.damage import DAMAGED, Damage, Damages, kind_of
from shared.log.jobs import Jobs
from shared.log.lifecycle import Lifecycle
from shared.log.log import Log
from shared.log.naming import entry_name, stream_name
from shared.objects.keys import manifest_key
from shared.objects.port import ObjectStore
from shared.redis.keys import Keys
from tests.logservice.compacting import compact
from tests.logservice.conftest import SteppedClock
from tests.shared.log.appending import FIXED, append, make_collection


def damage(name: str, collection: str = "c", shard: int | None = 0) -> Damage:
    return Damage(name, kind_of(name), "is missing", "", "w", 1.0, collection, shard)


def test_segments_are_rewritten_and_nothing_else() -> None:
    assert to_rewrite(
        [
            damage("c/0/segments/s/graph.hnsw"),
            damage("c/0/segments/s/ids.index", "fork", 3),
            damage("c/1/segments/s/records.arrow", shard=1),
            damage("c/2/manifests/00000000000000000001.json", shard=2),
            damage("c/3/log/7-0", shard=3),
            damage("c/4/segments/s/ids.index", shard=None),
        ]
    ) == {ShardId("c", 0), ShardId("fork", 3), ShardId("c", 1)}


async def test_shards_with_damaged_segments_are_queued_again_after_a_while_and_those_of_deleted_collections_forgotten(
    redis: Redis, keys: Keys
) -> None:
    damages, jobs, lifecycle, clock = Damages(redis, keys), Jobs(redis, keys), Lifecycle(redis, keys), SteppedClock()
    for collection in ("kept", "deleted"):
        await lifecycle.create(collection, "db", FIXED, 0)
        await damages.report(damage(f"{collection}/0/segments/s/ids.index", collection))
    await damages.report(damage("buried/0/segments/s/ids.index", "buried"))
    await damages.report(damage("lost/state", "lost", None))
    await lifecycle.mark_deleted(["deleted"])

    async def graves() -> set[str]:
        return {"buried"}

    watch = DamageWatch(damages, Log(redis, keys), jobs, graves, clock)
    await watch.step()
    assert await damages.names() == {"kept/0/segments/s/ids.index", "lost/state"}
    job = await jobs.claim("me", 60.0)
    assert job is not None
    assert (job.collection_id, job.shard) == ("kept", 0)
    assert await jobs.claim("me", 60.0) is None
    await jobs.finish(job, "me")
    await watch.step()
    assert await jobs.claim("me", 60.0) is None
    clock.time_s += REWRITE_AGAIN_S
    await watch.step()
    assert await jobs.claim("me", 60.0) == job
    assert DAMAGED.labels("derived")._value.get() == 1
    await damages.clear(["kept/0/segments/s/ids.index"])
    await watch.step()
    assert DAMAGED.labels("derived")._value.get() == 0


async def test_what_the_present_state_does_not_need_any_more_is_cleared(
    redis: Redis, keys: Keys, catalog: Catalog, database: Database, log: Log, objects: ObjectStore
) -> None:
    damages = Damages(redis, keys)
    made = await make_collection(catalog, database)
    await append(log, made, ["a", "b"])
    first = await compact(log, objects, made.id)
    await log.trim(made.id, 0, first, 0)
    await append(log, made, ["c"])
    await compact(log, objects, made.id)
    old = [entry_name(made.id, 0, "1-0"), manifest_key(made.id, 0, 1)]
    present = [entry_name(made.id, 0, "3-0"), manifest_key(made.id, 0, 2), stream_name(made.id, 0)]
    for name in (*old, *present):
        await damages.report(damage(name, made.id))

    async def graves() -> set[str]:
        return set()

    await DamageWatch(damages, log, Jobs(redis, keys), graves, SteppedClock()).step()
    assert await damages.names() == set(present)
