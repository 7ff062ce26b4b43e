"""A random history against the plain model: shards, compactions and restarts must not show in any answer."""

import httpx
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Machine

SETTINGS = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_random_histories_agree_with_the_model(server_client: httpx.Client) -> None:
    class OnServer(Machine):
        client = server_client

    run_state_machine_as_test(OnServer, settings=SETTINGS)
