"""Objects that count as left of what is erased."""

from __future__ import annotations

from logservice.erasing.remains import CleanShard, remains_of_deleted, remains_of_living
from shared.objects.keys import manifest_key, segment_path
from shared.objects.port import ObjectInfo

CID = "0a8b1c9e-1111-4222-8333-444455556666"
BARRIER = 100


def put(key: str, modified_s: float) -> ObjectInfo:
    return ObjectInfo(key, 1, modified_s)


def manifest(version: int, modified_s: float, shard: int = 0) -> ObjectInfo:
    return put(manifest_key(CID, shard, version), modified_s)


def segment(name: str, modified_s: float, shard: int = 0) -> ObjectInfo:
    return put(f"{segment_path(CID, shard, name)}/records.arrow", modified_s)


CLEAN = {0: CleanShard(3, frozenset({segment_path(CID, 0, "new")}))}


def left(*objects: ObjectInfo) -> list[str]:
    found = remains_of_living(objects, BARRIER, CLEAN)
    return sorted(key for keys in found.keys.values() for key in keys)


def test_what_the_clean_manifest_names_stays_and_what_is_older_than_it_is_left() -> None:
    old, new = segment("old", 5.0), segment("new", 9.0)
    assert left(manifest(2, 6.0), manifest(3, 10.0), old, new) == sorted([manifest(2, 6.0).key, old.key])


def test_segments_and_manifests_that_came_after_the_clean_one_are_made_of_clean_ones() -> None:
    assert left(manifest(3, 10.0), manifest(4, 12.0), segment("new", 9.0), segment("later", 11.0)) == []


def test_a_segment_that_nothing_names_is_suspect_by_its_oldest_file() -> None:
    path = segment_path(CID, 0, "slept")
    records, mark = put(f"{path}/records.arrow", 5.0), put(f"{path}/condemned", 20.0)
    assert left(manifest(3, 10.0), records, mark) == sorted([records.key, mark.key])


def test_roots_and_sealed_log_from_before_the_barrier_are_left() -> None:
    before, after = (
        put(f"{CID}/roots/0000000000-{99:020d}.json", 1.0),
        put(f"{CID}/roots/0000000000-{100:020d}.json", 2.0),
    )
    sealed, later = (
        put(f"{CID}/0/log/{90:020d}-{110:020d}.log", 1.0),
        put(f"{CID}/0/log/{100:020d}-{120:020d}.log", 1.0),
    )
    assert left(manifest(3, 10.0), before, after, sealed, later) == sorted([before.key, sealed.key])


def test_shards_of_earlier_layouts_are_left_as_a_whole() -> None:
    assert left(manifest(3, 10.0), manifest(9, 99.0, shard=7), segment("x", 99.0, shard=7)) == sorted(
        [manifest(9, 99.0, shard=7).key, segment("x", 99.0, shard=7).key]
    )


def test_of_a_deleted_collection_everything_is_left_but_what_forks_have() -> None:
    shared, own = segment("shared", 1.0), segment("own", 1.0)
    found = remains_of_deleted([shared, own, manifest(1, 1.0)])
    assert found.counts == {"segments": 2, "manifests": 1}
    assert found.without({segment_path(CID, 0, "shared")}).segments == {segment_path(CID, 0, "own")}
