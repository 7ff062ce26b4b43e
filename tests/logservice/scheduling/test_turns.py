"""Tenants take turns at compactors, by bytes, whatever the urgency of what each has."""

import itertools
from random import Random

import pytest

from logservice.scheduling.turns import JOB_BYTES, DueShard, Turns


def shards(tenant: str, count: int, urgency: float, size: int = 0) -> list[DueShard]:
    return [DueShard(f"{tenant}-{number}", 0, urgency + number / 1000, tenant, size) for number in range(count)]


def tenants(turns: Turns, due: list[DueShard]) -> list[str]:
    return [shard.tenant for shard, _ in turns.order(due)]


def test_a_tenants_only_shard_comes_after_one_of_a_thousand_more_urgent_ones() -> None:
    order = tenants(Turns(), [*shards("noisy", 1000, 50.0), *shards("quiet", 1, 1.0)])
    assert order.index("quiet") == 1


def test_a_tenant_alone_has_its_shards_compacted_by_urgency_which_stays_as_it_is() -> None:
    due = shards("alone", 20, 1.0)
    Random(1).shuffle(due)
    ordered = Turns().order(due)
    assert [urgency for _, urgency in ordered] == sorted((shard.urgency for shard in due), reverse=True)
    assert all(shard.urgency == urgency for shard, urgency in ordered)


def test_of_equal_urgencies_the_order_is_kept() -> None:
    due = [DueShard(f"c-{number}", 0, 1.0, "ab"[number % 2], 0) for number in range(100)]
    urgencies = [urgency for _, urgency in Turns().order(due)]
    assert urgencies[0] == 1.0
    assert all(left > right for left, right in itertools.pairwise(urgencies))
    assert urgencies[-1] == pytest.approx(1.0)


def test_large_shards_are_fewer_turns() -> None:
    order = tenants(Turns(), [*shards("large", 10, 5.0, 9 * JOB_BYTES), *shards("small", 100, 1.0)])
    assert order[:22].count("large") == 2  # each as much as ten small ones


def test_what_was_compacted_counts_in_later_turns() -> None:
    turns = Turns()
    due = [*shards("noisy", 3, 50.0), *shards("quiet", 1, 1.0)]
    assert tenants(turns, due)[0] == "noisy"
    turns.charge("noisy", due[0].cost)
    assert tenants(turns, due)[0] == "quiet"


def test_a_tenant_that_comes_anew_has_saved_nothing_up() -> None:
    turns = Turns()
    steady = shards("steady", 100, 1.0)
    for _ in range(50):
        turns.order(steady)
        turns.charge("steady", JOB_BYTES)
    order = tenants(turns, [*steady, *shards("new", 100, 1.0)])
    assert 9 <= order[:20].count("steady") <= 11


def test_a_pause_does_not_forgive_what_a_tenant_had_beyond_the_others() -> None:
    turns = Turns()
    both = [*shards("greedy", 1, 9.0), *shards("other", 100, 1.0)]
    turns.order(both)
    turns.charge("greedy", 10 * JOB_BYTES)
    turns.order(both[1:])
    assert tenants(turns, both).index("greedy") >= 10


@pytest.mark.parametrize("seed", range(20))
def test_tenants_with_enough_to_do_get_equal_shares(seed: int) -> None:
    random = Random(seed)
    names = ["a", "b", "c"]
    turns, got = Turns(), dict.fromkeys(names, 0)
    left = {name: [random.randint(0, 8) * JOB_BYTES for _ in range(random.randint(100, 500))] for name in names}
    while all(left.values()):
        due = [DueShard(f"{name}-{n}", 0, random.random(), name, s) for name in names for n, s in enumerate(left[name])]
        first = turns.order(due)[0][0]
        left[first.tenant].remove(first.bytes)
        got[first.tenant] += first.cost
        turns.charge(first.tenant, first.cost)
        assert max(got.values()) - min(got.values()) <= 2 * 9 * JOB_BYTES
