"""What of the containers can be reached, and by whom."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from polychrome.secret_files import password_variable
from shared.process.config import ROLES
from tests.cluster.compose_file import COMPOSE, COMPOSE_FILE

SERVERS = ("redis", "minio")


def resolved() -> dict[str, Any]:
    command = [str(COMPOSE), "--file", str(COMPOSE_FILE), "config", "--format", "json"]
    read: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return read


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return resolved()


def test_only_frontends_are_in_a_network_with_a_way_out(compose: dict[str, Any]) -> None:
    outside = {name for name, network in compose["networks"].items() if not network.get("internal")}
    reached = {name for name, service in compose["services"].items() if outside & set(service["networks"])}
    assert outside == {"edge"}
    assert reached == {"frontend"}


def test_only_frontends_publish_a_port_and_on_this_machine_alone(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if service.get("ports")}
    assert set(published) == {"frontend"}
    assert {port["host_ip"] for port in published["frontend"]} == {"127.0.0.1"}


def test_processes_prove_to_each_other_that_they_belong_to_the_cluster(compose: dict[str, Any]) -> None:
    for role in ROLES:
        service = compose["services"][role]
        assert service["environment"]["POLYCHROME_CLUSTER_SECRET_FILE"] == "/run/polychrome/cluster-secret"
        (volume,) = [each for each in service["volumes"] if each["target"] == "/run/polychrome"]
        assert volume["read_only"]
        assert service["depends_on"]["secrets"]["condition"] == "service_completed_successfully"
    (drawn,) = [each for each in compose["services"]["secrets"]["volumes"] if each["target"] == "/run/polychrome"]
    assert not drawn.get("read_only")


def test_redis_has_a_user_for_each_role_whose_password_may_be_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {role: f"word-of-{role}" for role in ROLES}
    for role, word in words.items():
        monkeypatch.setenv(password_variable(role), word)
    monkeypatch.setenv("REDIS_PASSWORD", "word-of-the-operator")
    services = resolved()["services"]
    command = services["redis"]["command"]
    assert command[command.index("--aclfile") + 1] == "/run/redis-users/users.acl"
    assert "/run/redis-users/users.acl" in services["secrets"]["command"]
    (users,) = [each for each in services["redis"]["volumes"] if each["target"] == "/run/redis-users"]
    assert users["read_only"]
    wanted = {password_variable(role): word for role, word in words.items()}
    wanted["REDIS_PASSWORD"] = "word-of-the-operator"
    for name in ("secrets", "redis"):  # in that of Redis, so that a change of one starts the server anew
        assert wanted.items() <= services[name]["environment"].items()
    for role, word in words.items():
        environ = services[role]["environment"]
        assert environ["REDIS_URL"] == f"redis://{role}:{word}@redis:6379/0"
        assert not [name for name, value in environ.items() if "word-of" in str(value) and name != "REDIS_URL"]


def test_no_container_can_fill_the_machine_with_processes_or_take_more_rights(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert 0 < service["pids_limit"] <= 1024, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("cap_drop") == ["ALL"] or name in SERVERS
        assert service.get("read_only") or name in SERVERS
