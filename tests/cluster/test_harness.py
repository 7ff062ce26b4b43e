"""compose.yaml as the harness reads it, and the harness's own tools."""

import subprocess
from pathlib import Path

import pytest

from tests.cluster.compose_file import COMPOSE, COMPOSE_FILE, PROCESSES, Here, read_services, spec_of
from tests.cluster.harness import _is_loud
from tests.cluster.waiting import wait_until


def test_compose_accepts_the_file() -> None:
    subprocess.run([COMPOSE, "--file", COMPOSE_FILE, "config", "--quiet"], check=True)


def test_every_process_is_a_service_with_its_command_and_its_stores() -> None:
    services = read_services()
    for role in PROCESSES:
        assert services[role].command == ("python3", "-m", role)
        assert services[role].environ["REDIS_URL"] == f"redis://{role}:polychrome@redis:6379/0"
        assert services[role].environ["POLYCHROME_BUCKET_URL"] == "s3://polychrome"


def test_redis_in_compose_is_durable_and_forgets_nothing() -> None:
    command = " ".join(read_services()["redis"].command)
    assert "--appendonly yes" in command
    assert "--appendfsync always" in command
    assert "--maxmemory-policy noeviction" in command


def test_replicas_differ_only_in_what_containers_have_to_themselves(tmp_path: Path) -> None:
    service = read_services()["frontend"]
    here = Here("127.0.0.1:1", "127.0.0.1:2")
    first, second = (spec_of(service, number, here, tmp_path) for number in (1, 2))
    differing = {key for key in first.environ if first.environ[key] != second.environ[key]}
    assert differing <= {"POLYCHROME_FRONTEND_PORT", "POLYCHROME_ADMIN_PORT"}
    assert first.environ["REDIS_URL"] == "redis://frontend:polychrome@127.0.0.1:1/0"
    assert first.environ["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:2"


def test_a_wait_that_fails_tells_the_last_failure() -> None:
    def check() -> bool:
        raise AssertionError("the third of two")

    with pytest.raises(AssertionError, match="the third of two"):
        wait_until(check, "anything", timeout_s=0.1)


@pytest.mark.parametrize(
    ("line", "loud"),
    [
        ('{"event":"x","level":"warning"}', False),
        ('{"event":"x","level":"error"}', True),
        ('{"event":"x","level":"info","exception":"Traceback"}', True),
        ("Traceback (most recent call last):", True),
        ("", False),
    ],
)
def test_errors_and_stray_output_are_noticed_in_logs(line: str, *, loud: bool) -> None:
    assert _is_loud(line) is loud
