from pathlib import Path

from queryworker.cache_dir import own_slot
from queryworker.shards.registry import Loaded, evictions


def test_nothing_is_dropped_within_the_budget() -> None:
    assert evictions([Loaded(("a", 0), 10, 5.0), Loaded(("b", 0), 10, 1.0)], 20, 60.0) == []


def test_the_longest_unused_go_first_until_the_rest_fits() -> None:
    loaded = [Loaded(("new", 0), 10, 1.0), Loaded(("old", 0), 10, 9.0), Loaded(("older", 0), 10, 10.0)]
    assert evictions(loaded, 15, 60.0) == [("older", 0), ("old", 0)]


def test_a_shard_larger_than_the_budget_is_still_served() -> None:
    assert evictions([Loaded(("huge", 0), 100, 1.0), Loaded(("small", 0), 1, 2.0)], 10, 60.0) == [("small", 0)]


def test_idle_shards_are_dropped_whatever_they_hold() -> None:
    assert evictions([Loaded(("a", 0), 1, 61.0)], 1000, 60.0) == [("a", 0)]


def test_two_processes_never_share_a_slot_and_a_free_one_is_found_again(tmp_path: Path) -> None:
    with own_slot(tmp_path) as first:
        (first / "file").touch()
        with own_slot(tmp_path) as second:
            assert second != first
    with own_slot(tmp_path) as again:
        assert again == first
        assert (again / "file").exists()
