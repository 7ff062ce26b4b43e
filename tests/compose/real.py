"""compose.yaml itself, run by a real container engine: built, scaled, one container killed, data intact.

`make test-compose` runs this (as root; it installs an engine). The cheap part, whether Compose accepts the file and
whether its processes work, is in tests/cluster.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cluster.waiting import wait_until
from tests.compose.engine import Engine, make_base_image, make_stand_ins, running_engine
from tests.missing import needs
from tests.outside.paths import CHECKOUT

ROWS = 500
SCALE = ("--scale", "frontend=2", "--scale", "queryworker=3", "--scale", "compactor=2", "--scale", "logservice=2")
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="a container engine needs root"),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    for program in ("dockerd", "iptables", "debootstrap"):
        needs(program)
    with running_engine(tmp_path_factory.mktemp("engine")) as running:
        make_base_image(running, CHECKOUT / ".cache" / "compose")
        make_stand_ins(running)
        running.compose("build", "frontend")  # all four processes run the one image
        try:
            yield running
        finally:
            running.compose("down", "--volumes", "--timeout", "10")


def frontends(engine: Engine) -> list[str]:
    names = engine.compose("ps", "--format", "{{.Name}}", "frontend").split()
    return [f"http://{engine.docker('port', name, '8000').split()[0]}" for name in names]


def stored_ids(url: str, collection: str) -> set[str]:
    answer = httpx.post(f"{url}{COLLECTIONS}/{collection}/get", json={"include": []}, timeout=30)
    answer.raise_for_status()
    return set(answer.json()["ids"])


def write(url: str) -> tuple[str, set[str]]:
    """One collection with some rows, acknowledged."""
    created = httpx.post(f"{url}{COLLECTIONS}", json={"name": "kept", "get_or_create": True}, timeout=30)
    created.raise_for_status()
    collection = created.json()["id"]
    ids = [f"row-{number}" for number in range(ROWS)]
    embeddings = [[float(number), float(number % 7), 1.0] for number in range(ROWS)]
    added = httpx.post(f"{url}{COLLECTIONS}/{collection}/add", json={"ids": ids, "embeddings": embeddings}, timeout=30)
    added.raise_for_status()
    return collection, set(ids)


def test_the_cluster_in_containers_keeps_its_data_through_kills_and_a_restart(engine: Engine) -> None:
    engine.compose("up", "--detach", "--wait", *SCALE)
    urls = frontends(engine)
    assert len(urls) == 2
    collection, ids = write(urls[0])
    assert stored_ids(urls[1], collection) == ids

    for name in ("polychrome-queryworker-1", "polychrome-redis-1"):
        engine.docker("kill", name)
        if "redis" in name:
            engine.docker("start", name)  # a kill by hand is not restarted by the engine
        for url in urls:
            wait_until(lambda url=url: stored_ids(url, collection) == ids, "all rows back", 60)  # type: ignore[misc]

    engine.compose("down", "--timeout", "30")
    engine.compose("up", "--detach", "--wait")
    wait_until(lambda: stored_ids(frontends(engine)[0], collection) == ids, "all rows after a restart", 60)


def test_the_image_is_small_and_runs_as_nobody(engine: Engine) -> None:
    inspected = engine.docker("image", "inspect", "polychrome:latest", "--format", "{{.Config.User}} {{.Size}}")
    user, size = inspected.split()
    assert user not in ("", "root", "0")
    base = engine.docker("image", "inspect", "docker.io/library/python:3.11-slim-bookworm", "--format", "{{.Size}}")
    assert int(size) - int(base) < 300 * 1024 * 1024


def test_the_image_has_the_licence(engine: Engine) -> None:
    read = "import importlib.metadata as m; print(m.distribution('polychrome').read_text('licenses/LICENSE'), end='')"
    found = engine.docker("run", "--rm", "polychrome:latest", "python3", "-c", read)
    assert found == (CHECKOUT / "LICENSE").read_text()


def test_it_was_built_from_what_is_here(engine: Engine) -> None:
    listed = engine.docker(
        "run", "--rm", "polychrome:latest", "python3", "-c", "import shared.limits; print(shared.limits.__file__)"
    )
    source = engine.docker("run", "--rm", "polychrome:latest", "cat", listed.strip())
    assert source == Path(CHECKOUT / "shared" / "limits.py").read_text()
