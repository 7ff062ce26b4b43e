"""Which shards are let go of, and what becomes of them."""

from queryworker.shards.registry import ShardUsage, evictions


def test_nothing_is_dropped_within_the_budget() -> None:
    assert evictions([ShardUsage(("a", 0), 10, 5.0), ShardUsage(("b", 0), 10, 1.0)], 20, 60.0) == []


def test_the_longest_unused_go_first_until_the_rest_fits() -> None:
    loaded = [ShardUsage(("new", 0), 10, 1.0), ShardUsage(("old", 0), 10, 9.0), ShardUsage(("older", 0), 10, 10.0)]
    assert evictions(loaded, 15, 60.0) == [("older", 0), ("old", 0)]


def test_a_shard_larger_than_the_budget_is_still_served() -> None:
    assert evictions([ShardUsage(("huge", 0), 100, 1.0), ShardUsage(("small", 0), 1, 2.0)], 10, 60.0) == [("small", 0)]


def test_idle_shards_are_dropped_whatever_they_hold() -> None:
    assert evictions([ShardUsage(("a", 0), 1, 61.0)], 1000, 60.0) == [("a", 0)]
