"""`make soak`: kills by chance until there were enough, in rounds; after each round everything is checked.

A round has one seed and at least 20 kills, so `--kills` up to 20 is one seed; beyond that the seeds after it follow.

python -m tests.faults.soak [--kills 200] [--seed 1] [--shards 2] [--directory DIR]
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.cluster.harness import Cluster
from tests.faults.kills import Killer
from tests.faults.scenario import fault_cluster, run_scenario

KILLS_A_ROUND = 20


def main() -> None:
    options = _options()
    began_s = time.monotonic()
    kills: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="soak-", dir=options.directory) as directory,
        fault_cluster(Path(directory) / "cluster", options.shards) as cluster,
    ):
        seed = options.seed
        while kills.total() < options.kills:
            kills += Counter(asyncio.run(_round(cluster, seed)))
            print(f"{time.monotonic() - began_s:6.0f} s  {kills.total()} kills", flush=True)
            seed += 1
    for what, count in sorted(kills.items()):
        print(f"{count:5}  {what}")
    print(f"{kills.total()} kills in {time.monotonic() - began_s:.0f} s; every promise kept")


async def _round(cluster: Cluster, seed: int) -> dict[str, int]:
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
        "--kills",
        type=int,
        default=200,
        help=f"kills that are enough (default: 200); a round makes at least {KILLS_A_ROUND}, whatever is asked for",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the first round (default: 1); the next round has the next"
    )
    parser.add_argument("--shards", type=int, default=2, help="shards of each collection (default: 2)")
    parser.add_argument("--directory", type=Path, default=None, help="where the cluster keeps its data (default: /tmp)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
