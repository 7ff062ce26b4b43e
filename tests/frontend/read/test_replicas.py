from __future__ import annotations

import random
from collections import Counter

from frontend.read.replicas import HEAD_START, call_order

RANKED = ["a", "b", "c", "d"]


def test_without_replicas_the_rank_alone_decides() -> None:
    for replicas in (0, 1):
        assert call_order(RANKED, replicas, lambda worker: 100 if worker == "a" else 0, lambda _: 0) == RANKED
    assert call_order(["a"], 5, lambda _: 100, lambda _: 0) == ["a"]
    assert call_order([], 2, lambda _: 0, lambda _: 0) == []


def test_at_low_load_one_warm_worker_is_asked() -> None:
    chance = random.Random(1)
    for busy in range(HEAD_START):
        calls = dict.fromkeys(RANKED, 0) | {"a": busy}
        turns = [call_order(RANKED, 2, calls.__getitem__, chance.randrange) for _ in range(50)]
        assert {turn[0] for turn in turns} == {"a"}


def test_a_busy_one_is_left_for_the_other_and_nobody_beyond_the_replicas_is_asked_first() -> None:
    chance = random.Random(2)
    turns = [call_order(RANKED, 2, lambda worker: HEAD_START * (worker == "a"), chance.randrange) for _ in range(50)]
    assert {tuple(turn) for turn in turns} == {("b", "a", "c", "d")}


def test_every_worker_stays_call_order_whatever_is_drawn() -> None:
    chance = random.Random(3)
    for _ in range(200):
        loads = {worker: chance.randrange(3 * HEAD_START) for worker in RANKED}
        turn = call_order(RANKED, chance.randrange(6), loads.__getitem__, chance.randrange)
        assert sorted(turn) == RANKED
        assert turn[1:] == [worker for worker in RANKED if worker != turn[0]]


def test_load_spreads_evenly_over_the_replicas() -> None:
    chance = random.Random(4)
    calls: Counter[str] = Counter()
    for _ in range(1000):
        calls[call_order(RANKED, 3, calls.__getitem__, chance.randrange)[0]] += 1
    assert calls["d"] == 0
    assert max(calls.values()) - min(calls[worker] for worker in "abc") <= 3 * HEAD_START
