"""How long what belongs to the history of a collection stays in the bucket."""

from __future__ import annotations

import pytest

from logservice.garbage.history import plan_sealed_logs
from logservice.garbage.plan import CatalogView, LayoutChange, Listing, Periods, plan_garbage, plan_manifests
from shared.log.state import Pointer
from shared.objects.keys import SealedRange, manifest_key
from shared.objects.port import ObjectInfo

NOW_S = 10_000.0
KEPT_S = 1000.0
CID = "0f0e0d0c-0b0a-4908-8706-050403020100"


def sealed(first: int, end: int, age_s: float, shard: int = 0) -> ObjectInfo:
    return ObjectInfo(SealedRange(CID, shard, first, end).key, 100, NOW_S - age_s)


def deleted(objects: list[ObjectInfo], covers: int = 100, **parts: set[tuple[str, int]]) -> list[str]:
    pointers = {(CID, 0): Pointer(9, "h", covers)}
    return plan_sealed_logs(
        objects, NOW_S, pointers, {CID: KEPT_S}, parts.get("gone", set()), parts.get("spared", set())
    )


def test_objects_older_than_the_history_go_but_for_the_newest_of_them() -> None:
    objects = [sealed(1, 10, 5000), sealed(10, 20, 3000), sealed(20, 30, 1500), sealed(30, 40, 500), sealed(40, 50, 1)]
    assert deleted(objects) == [objects[0].key, objects[1].key]


def test_what_another_object_contains_goes_soon() -> None:
    small = [sealed(10, 13, 400), sealed(13, 17, 350), sealed(17, 20, 10)]
    objects = [sealed(1, 10, 500), *small, sealed(10, 20, 5), sealed(20, 30, 400), sealed(25, 32, 400)]
    assert deleted(objects) == [small[0].key, small[1].key]
    assert deleted(objects, covers=5) == [small[0].key, small[1].key]


def test_what_a_restoration_reads_stays_whatever_its_age() -> None:
    objects = [sealed(first, first + 10, 5000) for first in range(1, 61, 10)]
    pointers, needed = {(CID, 0): Pointer(9, "h", 100)}, {(CID, 0): (15, 35)}
    for gone in (set[tuple[str, int]](), {(CID, 0)}):
        found = plan_sealed_logs(objects, NOW_S, pointers, {CID: KEPT_S}, gone, set(), needed)
        assert {objects[0].key} <= {*found} <= {objects[place].key for place in (0, 4, 5)}


def test_what_no_manifest_covers_stays() -> None:
    objects = [sealed(1, 10, 5000), sealed(10, 20, 3000), sealed(20, 30, 1500)]
    assert deleted(objects, covers=10) == []


def test_nothing_of_broken_shards_goes() -> None:
    objects = [sealed(1, 10, 5000), sealed(10, 20, 3000)]
    assert deleted(objects, spared={(CID, 0)}) == []


def test_all_of_a_shard_of_an_earlier_layout_goes_with_it() -> None:
    objects = [sealed(1, 10, 5000, shard=7), sealed(10, 20, 1, shard=7)]
    assert deleted(objects) == []
    assert deleted(objects, gone={(CID, 7)}) == [each.key for each in objects]


@pytest.mark.parametrize(("history_s", "kept"), [(0.0, [4]), (1500.0, [2, 3, 4]), (2500.0, [1, 2, 3, 4])])
def test_replaced_manifests_are_kept_for_the_history(history_s: float, kept: list[int]) -> None:
    """Version n was written (5 - n) * 1000 s ago: by then the one before was replaced, or the one before that."""
    objects = [ObjectInfo(manifest_key(CID, 0, n), 10, NOW_S - (5 - n) * 1000) for n in range(1, 5)]
    view = CatalogView({(CID, 0): Pointer(4, "h", 1)}, {}, histories={CID: history_s})
    plan = plan_manifests(Listing(objects, NOW_S), view, Periods(grace_s=6000, retention_s=500))
    assert plan.kept == [manifest_key(CID, 0, n) for n in kept]


def test_a_round_deletes_what_the_plan_says_of_living_and_dead_collections() -> None:
    objects = [sealed(1, 10, 5000), sealed(10, 20, 3000), sealed(20, 30, 1500), sealed(1, 9, 1, shard=1)]
    periods = Periods(grace_s=1, retention_s=1000)
    living = CatalogView({(CID, 2): None, (CID, 0): Pointer(4, "h", 100)}, {}, {CID: LayoutChange(2, NOW_S - 2000)})
    listing = Listing(objects, NOW_S)
    plan = plan_garbage(listing, living, periods, plan_manifests(listing, living, periods), frozenset(), set())
    assert plan.others == [objects[0].key, objects[1].key, objects[3].key]
    dead = CatalogView({}, {CID: NOW_S - 9000})
    plan = plan_garbage(listing, dead, periods, plan_manifests(listing, dead, periods), frozenset(), set())
    assert plan.others == [each.key for each in objects]


def test_of_a_collection_that_is_being_erased_the_newest_old_object_goes_as_well() -> None:
    objects = [sealed(1, 50, 3000), sealed(50, 100, 2000)]
    pointers = {(CID, 0): Pointer(4, "h", 100)}
    found = [
        plan_sealed_logs(objects, NOW_S, pointers, {CID: KEPT_S}, set(), set(), erasing=erasing)
        for erasing in (set[str](), {CID})
    ]
    assert found == [[objects[0].key], [objects[0].key, objects[1].key]]
