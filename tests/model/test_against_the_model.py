"""Promise 4, and docs/wire.md, sections 12 to 14: a random history against the plain model. Shards, compactions and
restarts must not show in any answer.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.cluster.harness import ClusterBuilder
from tests.model.disturbances import ClusterDisturbance
from tests.model.machine import Disturbance, Machine

SETTINGS = settings(
    max_examples=int(os.environ.get("MODEL_HISTORIES", "12")),
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),  # a failing history says enough; to shrink it takes an hour of restarts
    suppress_health_check=list(HealthCheck),
)
EAGER = {
    "POLYCHROME_LOGSERVICE_COMPACT_QUIET_S": "0.1",
    "POLYCHROME_LOGSERVICE_TICK_S": "0.05",
    "POLYCHROME_COMPACTOR_POLL_S": "0.05",
}
"""Compactions follow writes closely, so that they meet reads."""


@contextmanager
def server(directory: Path, shards: int) -> Iterator[tuple[str, Disturbance | None]]:
    """Its URL, and what may disturb it: nothing when it is somebody else's (TEST_SERVER_URL)."""
    given = os.environ.get("TEST_SERVER_URL")
    if given:
        yield given, None
        return
    builder = ClusterBuilder(directory, query_workers=2, compactors=2, shards_default=shards, environ=EAGER)
    with builder.start() as cluster:
        yield cluster.url, ClusterDisturbance(cluster)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("shards", [1, 3])
def test_random_histories_agree_with_the_model(tmp_path: Path, shards: int) -> None:
    with server(tmp_path, shards) as (url, what_disturbs), httpx.Client(base_url=url, timeout=60.0) as http:

        class OnServer(Machine):
            client = http
            disturbance = what_disturbs

        run_state_machine_as_test(OnServer, settings=SETTINGS)
