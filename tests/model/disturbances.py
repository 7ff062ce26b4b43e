"""What happens to a cluster behind the model's back."""

import itertools

from tests.cluster.harness import Cluster
from tests.cluster.waiting import wait_until
from tests.model.api import Api


class ClusterDisturbance:
    """Compacts and kills in turn, so that a run repeats from its seed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._queryworkers = itertools.cycle(process.spec.name for process in cluster.role("queryworker"))
        self._compactors = itertools.cycle(process.spec.name for process in cluster.role("compactor"))

    def wait_for_compaction(self, api: Api, name: str, operations: int) -> None:
        """Until the index holds the first `operations` operations."""
        wait_until(lambda: api.collection(name)["log_position"] >= operations, f"{name} indexed up to {operations}")

    def restart_queryworker(self) -> None:
        self._cluster.restart(next(self._queryworkers))

    def restart_compactor(self) -> None:
        self._cluster.restart(next(self._compactors))
