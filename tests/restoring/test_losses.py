"""Restoring is atomic: whenever Redis is lost or goes back, a bank over several shards keeps its sum (promise 9)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.restoring.bank import Bank

LOSSES = 8
STEPS_MAX = 20


@pytest.mark.parametrize(("seed", "shards"), [(1, 2), (2, 3), (3, 1)])
async def test_a_bank_keeps_its_sum_whenever_redis_is_lost_or_goes_back(bank: Bank, seed: int, shards: int) -> None:
    chance = random.Random(seed)
    copies: list[Path] = []
    await bank.found(shards)
    for loss in range(LOSSES):
        if loss == LOSSES // 2:
            await bank.ask_for_shards(shards + 2)
        for _ in range(chance.randint(1, STEPS_MAX)):
            await bank.step(chance, copies)
        if copies and chance.random() < 0.5:
            await bank.go_back(chance.choice(copies))
        else:
            await bank.lose_redis()
    await bank.ask_for_shards(shards + 2)  # a Redis that went back may have forgotten it
    for _ in range(8):
        await bank.rebuild()
    assert (await bank.refresh()).layout.count == shards + 2
    assert await bank.read() == bank.balances
