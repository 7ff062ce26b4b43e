"""`make soak`: kills by chance until there were enough, in rounds; after each round everything is checked. Then losses:
Redis' data, all of it or a part, processes that stand still and processes that die, all mixed; first under clients that
write records, then under clients that change the catalog.

A round has one seed and at least 20 kills, so `--kills` up to 20 is one seed; beyond that the seeds after it follow. So
it is with losses, 8 a round.

python -m tests.faults.soak [--kills 1000] [--losses 200] [--catalog-losses 200] [--seed 1] [--shards 2]
                            [--directory DIR]
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.cluster.harness import Cluster
from tests.faults.catalog import run_catalog
from tests.faults.kills import Killer
from tests.faults.losses import SAYS_WHAT_IS_LOST, Losses, run_bank
from tests.faults.scenario import fault_cluster, run_scenario

KILLS_A_ROUND = 20
LOSSES_A_ROUND = 8

Round = Callable[[Cluster, int], Coroutine[Any, Any, dict[str, int]]]


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="soak-", dir=options.directory) as directory:
        parts = (
            ("kills", options.kills, _kills),
            ("losses", options.losses, _losses),
            ("catalog losses", options.catalog_losses, _catalog_losses),
        )
        for what, wanted, one_round in parts:
            if not wanted:
                continue
            with fault_cluster(Path(directory) / what.replace(" ", "-"), options.shards) as cluster:
                cluster.allow_in_logs(SAYS_WHAT_IS_LOST)
                _soak(cluster, what, wanted, options.seed, one_round)


def _soak(cluster: Cluster, what: str, wanted: int, seed: int, one_round: Round) -> None:
    began_s = time.monotonic()
    done: Counter[str] = Counter()
    while done.total() < wanted:
        done += Counter(asyncio.run(one_round(cluster, seed)))
        print(f"{time.monotonic() - began_s:6.0f} s  {done.total()} {what}", flush=True)
        seed += 1
    for name, count in sorted(done.items()):
        print(f"{count:5}  {name}")
    print(f"{done.total()} {what} in {time.monotonic() - began_s:.0f} s; every promise kept", flush=True)


async def _losses(cluster: Cluster, seed: int) -> dict[str, int]:
    counts: dict[str, int] = {}

    async def disturb(losses: Losses, killer: Killer) -> None:
        for number in range(LOSSES_A_ROUND):
            await asyncio.sleep(losses.chance.uniform(0.5, 2.0))
            await (killer.anything() if number % 3 == 2 else losses.anything())
        counts.update(losses.counts | killer.kills)

    bank = await run_bank(cluster, seed, disturb)
    print(
        f"seed {seed}: {bank.transfers} transfers acknowledged, {bank.lost} of them lost and named, "
        f"{bank.audits} audits",
        flush=True,
    )
    return counts


async def _catalog_losses(cluster: Cluster, seed: int) -> dict[str, int]:
    counts: dict[str, int] = {}

    async def disturb(losses: Losses, killer: Killer) -> None:
        for number in range(LOSSES_A_ROUND):
            await asyncio.sleep(losses.chance.uniform(0.5, 2.0))
            await (killer.anything() if number % 3 == 2 else losses.anything())
        counts.update(losses.counts | killer.kills)

    workload = await run_catalog(cluster, seed, disturb)
    ledger = workload.ledger
    doubts = sum(len(states) > 1 for states in ledger.states.values())
    print(f"seed {seed}: {ledger.acknowledged} changes acknowledged, {doubts} names in doubt", flush=True)
    return counts


async def _kills(cluster: Cluster, seed: int) -> dict[str, int]:
    async def disturb(killer: Killer) -> None:
        while killer.total < KILLS_A_ROUND:
            await killer.anything()
            await asyncio.sleep(killer.chance.uniform(0.0, 1.0))

    workload, killer = await run_scenario(cluster, seed, disturb)
    ledger, outages = workload.ledger, workload.outages
    print(
        f"seed {seed}: {ledger.acknowledged_writes} writes of {ledger.acknowledged_records} records acknowledged, "
        f"{len(ledger.unknown)} of unknown outcome, {outages.reads} reads, {outages.failures} failed, "
        f"never for longer than {outages.longest_s:.2f} s",
        flush=True,
    )
    return killer.kills


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description="Kill and check, for long.")
    parser.add_argument(
        "--losses",
        type=int,
        default=200,
        help="losses and pauses that are enough, with kills among them (default: 200)",
    )
    parser.add_argument(
        "--catalog-losses",
        type=int,
        default=200,
        help="losses, pauses and kills under changes of the catalog that are enough (default: 200)",
    )
    parser.add_argument(
        "--kills",
        type=int,
        default=1000,
        help=f"kills that are enough (default: 1000); a round makes at least {KILLS_A_ROUND}, whatever is asked for",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the first round (default: 1); the next round has the next"
    )
    parser.add_argument("--shards", type=int, default=2, help="shards of each collection (default: 2)")
    parser.add_argument("--directory", type=Path, default=None, help="where the cluster keeps its data (default: /tmp)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
