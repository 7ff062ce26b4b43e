"""Clusters that tests share: starting one takes seconds, so tests keep apart by names of their own."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.cluster.ceph import ceph_storage
from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.stores import ministack_storage
from tests.spreading import in_order, scheduler

# Repeatable, and no verdict by the clock: the machine that runs them may be busy.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

STORAGES = {"ministack": ministack_storage, "ceph": ceph_storage}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return scheduler(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # a process of pytest-xdist
        items[:] = [items[number] for number in in_order(item.nodeid for item in items)]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One of each process, objects in a directory. Tests leave it running as they found it."""
    with ClusterBuilder(tmp_path_factory.mktemp("cluster")).start() as started:
        yield started


@pytest.fixture(scope="session")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Several hosts' worth: compose.yaml scaled up, objects on an S3-compatible server over HTTP, two shards."""
    directory = tmp_path_factory.mktemp("topology")
    builder = ClusterBuilder(
        directory, frontends=2, compactors=2, query_workers=3, shards_default=2, cors_allow_origins=""
    )
    storage = STORAGES[os.environ.get("TEST_S3", "ministack")]
    with storage(directory / "objects") as objects, builder.start_from_compose(objects) as started:
        yield started
