"""Workload, disturb, validate: the one shape of every fault test."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.cluster.harness import Cluster, ClusterBuilder
from tests.faults.kills import Killer
from tests.faults.workload import Workload

FAILOVER_S_MAX: Final = 10.0
"""No reader may see errors for longer in a row: the slowest case is a Redis server or the last query worker starting
anew on a busy machine."""

ENVIRON: Final[Mapping[str, str]] = {
    "POLYCHROME_LOGSERVICE_COMPACT_OPS": "300",
    "POLYCHROME_LOGSERVICE_COMPACT_QUIET_S": "0.2",
    "POLYCHROME_LOGSERVICE_COMPACT_AGE_S": "1",
    "POLYCHROME_LOGSERVICE_LEASE_S": "1.5",
    "POLYCHROME_COMPACTOR_LEASE_S": "2",
}
"""Many small compactions, and leases that end soon after their holder."""

Disturb = Callable[[Killer], Awaitable[None]]


@contextmanager
def fault_cluster(directory: Path, shards: int) -> Iterator[Cluster]:
    builder = ClusterBuilder(
        directory, frontends=2, log_services=2, compactors=2, query_workers=2, shards_default=shards, environ=ENVIRON
    )
    with builder.start() as cluster:
        yield cluster


async def run_scenario(cluster: Cluster, seed: int, disturb: Disturb) -> tuple[Workload, Killer]:
    """Raises when a promise is broken while things die, or afterwards."""
    killer = Killer(cluster, random.Random(seed))
    async with Workload(cluster.urls, seed) as workload:
        work = asyncio.create_task(workload.run())
        disturbing = asyncio.ensure_future(disturb(killer))
        # A broken promise ends the workload early; then there is nothing left to disturb.
        await asyncio.wait((work, disturbing), return_when=asyncio.FIRST_COMPLETED)
        workload.stop()
        await disturbing
        await work
        await validate(killer, workload)
    return workload, killer


async def validate(killer: Killer, workload: Workload) -> None:
    """What must hold once nothing dies any more."""
    await asyncio.to_thread(killer.cluster.wait_ready)
    seen = await workload.everything()
    workload.ledger.check_whole(seen)
    await workload.wait_until_indexed()
    assert await workload.everything() == seen, "compaction changed what is read"
    await killer.restart_queryworkers()
    assert await workload.everything() == seen, "a worker without caches reads something else"
    assert workload.ledger.acknowledged_writes, "nothing was written"
    assert workload.outages.longest_s <= FAILOVER_S_MAX, workload.outages
