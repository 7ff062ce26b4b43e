"""Clusters that tests share: starting one takes seconds, so tests keep apart by names of their own."""

from collections.abc import Iterator

import pytest

from tests.cluster.harness import Cluster, ClusterBuilder


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
    with builder.start_from_compose() as started:
        yield started
