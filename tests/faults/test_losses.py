"""Promises 5 and 9 over real processes: a bank over three shards whose Redis is lost, and comes back older, keeps its
sum; a transfer that is gone is named.
"""

import asyncio
from pathlib import Path

import pytest

from tests.faults.kills import Killer
from tests.faults.losses import SAYS_WHAT_IS_LOST, Losses, run_bank
from tests.faults.scenario import fault_cluster

pytestmark = pytest.mark.timeout(300)


async def test_a_bank_over_several_shards_keeps_its_sum_when_redis_is_lost_or_comes_back_older(tmp_path: Path) -> None:
    async def disturb(losses: Losses, _killer: Killer) -> None:
        for _ in range(2):
            await asyncio.sleep(losses.chance.uniform(1.0, 1.5))
            await losses.all_of_redis()
        losses.copy_redis()
        await asyncio.sleep(3)  # compactions meanwhile, by which it shows that the copy is older
        await losses.older_redis()
        await asyncio.sleep(0.5)

    with fault_cluster(tmp_path, shards=3) as cluster:
        cluster.allow_in_logs(SAYS_WHAT_IS_LOST)
        bank = await run_bank(cluster, 1, disturb)
    assert bank.transfers > 20
