"""Deficit round robin: who gets which share of what is served."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.process.fair_queue import DEBTORS_MAX, FairQueue

QUANTUM = 1.0


def served(queue: FairQueue[float], count: int) -> list[tuple[str, float]]:
    """The next items, each of which is what it really costs; that is charged at once."""
    found: list[tuple[str, float]] = []
    for _ in range(count):
        taken = queue.take()
        assert taken is not None
        queue.correct(taken.tenant, taken.cost, taken.item)
        found.append((taken.tenant, taken.item))
    return found


def test_items_of_one_tenant_come_in_their_order_and_an_empty_queue_gives_none() -> None:
    queue: FairQueue[int] = FairQueue(QUANTUM)
    assert queue.take() is None
    for number, cost in enumerate((5.0, 0.0, 1e9, 0.1)):
        queue.put("a", cost, number)
    assert len(queue) == 4
    assert [taken.item for taken in iter(queue.take, None)] == [0, 1, 2, 3]
    assert len(queue) == 0


def test_a_small_item_does_not_wait_behind_the_large_ones_of_another_tenant() -> None:
    queue: FairQueue[float] = FairQueue(QUANTUM)
    for _ in range(100):
        queue.put("greedy", 50.0, 50.0)
    served(queue, 1)
    queue.put("modest", 0.5, 0.5)
    assert ("modest", 0.5) in served(queue, 2)


costs = st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), costs, min_size=2),
    st.integers(min_value=0, max_value=60),
    st.integers(min_value=1, max_value=200),
)
def test_who_always_has_items_gets_an_equal_share_of_any_interval(
    tenants: dict[str, list[tuple[float, float]]], begin: int, length: int
) -> None:
    """Items cost something else than was estimated. The slack does not grow with the interval."""
    queue: FairQueue[float] = FairQueue(QUANTUM)
    streams = {tenant: itertools.cycle(items) for tenant, items in tenants.items()}
    shares: Counter[str] = Counter()
    for tenant, stream in streams.items():
        for cost, real in itertools.islice(stream, 2):
            queue.put(tenant, cost, real)
    for number in range(begin + length):
        [(tenant, real)] = served(queue, 1)
        cost, following = next(streams[tenant])
        queue.put(tenant, cost, following)
        if number >= begin:
            shares[tenant] += real  # type: ignore[assignment] # amounts, not counts
    most = max(max(pair) for items in tenants.values() for pair in items)
    slack = 2 * (QUANTUM + 2 * most)
    for tenant in tenants:
        assert shares[tenant] >= sum(shares.values()) / len(tenants) - slack


def test_what_was_underestimated_is_made_up_for_also_by_a_tenant_that_has_nothing_waiting() -> None:
    """The greedy one sends an item whenever its last one was served, and says that it costs nothing."""
    queue: FairQueue[float] = FairQueue(QUANTUM)
    queue.put("greedy", 0.0, 100.0)
    spent: Counter[str] = Counter()
    for _ in range(50):
        queue.put("modest", 1.0, 1.0)
    for _ in range(51):
        [(tenant, real)] = served(queue, 1)
        spent[tenant] += int(real)
        if tenant == "greedy":
            queue.put("greedy", 0.0, 100.0)
    assert spent["greedy"] <= 200, "once, and perhaps before the first of the others"
    assert spent["modest"] >= 49


def test_a_debt_is_forgiven_by_the_rounds_that_others_had() -> None:
    queue: FairQueue[float] = FairQueue(QUANTUM)
    queue.put("late", 0.0, 10.0)
    served(queue, 1)
    for tenant in ("a", "b"):
        for _ in range(100):
            queue.put(tenant, 1.0, 1.0)
    served(queue, 60)
    queue.put("late", 1.0, 1.0)
    assert "late" in [tenant for tenant, _ in served(queue, 3)]


def test_credit_is_not_saved_up() -> None:
    queue: FairQueue[float] = FairQueue(QUANTUM)
    queue.put("idle", 0.1, 0.1)
    served(queue, 1)
    for _ in range(1000):
        queue.put("busy", 1.0, 1.0)
    served(queue, 500)
    for _ in range(50):
        queue.put("idle", 1.0, 1.0)
    shares = Counter(tenant for tenant, _ in served(queue, 40))
    assert abs(shares["idle"] - shares["busy"]) <= 4


def test_tenants_that_may_not_be_served_now_keep_their_turn() -> None:
    queue: FairQueue[int] = FairQueue(QUANTUM)
    queue.put("a", 1.0, 1)
    queue.put("b", 7.0, 2)
    assert queue.take(lambda tenant: tenant == "c") is None
    first = queue.take(lambda tenant: tenant == "b")
    assert first is not None
    assert first.item == 2
    second = queue.take()
    assert second is not None
    assert second.item == 1


def test_tenants_that_come_and_go_leave_little_behind() -> None:
    queue: FairQueue[float] = FairQueue(QUANTUM)
    for number in range(3 * DEBTORS_MAX):
        queue.put(f"t{number}", 0.0, 1000.0)
        served(queue, 1)
    assert len(queue._debts) <= DEBTORS_MAX
    assert not queue._accounts


@pytest.mark.parametrize("seed", range(3))
def test_everything_that_was_put_is_taken_once(seed: int) -> None:
    chance = random.Random(seed)
    queue: FairQueue[int] = FairQueue(QUANTUM)
    found: list[int] = []
    put = 0
    while put < 2000 or len(queue):
        if put < 2000 and chance.random() < 0.6:
            queue.put(chance.choice("abcdef"), chance.expovariate(0.5), put)
            put += 1
        elif (taken := queue.take()) is not None:
            queue.correct(taken.tenant, taken.cost, chance.expovariate(0.5))
            found.append(taken.item)
    assert sorted(found) == list(range(2000))
