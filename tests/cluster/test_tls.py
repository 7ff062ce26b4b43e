"""A cluster that encrypts all that goes to Redis, to the bucket and to clients."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.certificates import Authority
from tests.cluster.harness import ClusterBuilder
from tests.cluster.stores import ObjectStorage, S3Endpoint
from tests.cluster.waiting import wait_until
from tests.shared.objects.ministack import running_ministack
from tests.tls_redis import TlsServer

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"

pytestmark = pytest.mark.timeout(180)


def test_a_cluster_works_over_tls_alone_and_takes_new_certificates_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    api, bucket, own = (authority.sign(name) for name in ("api", "bucket", "client"))

    @contextmanager
    def storage(directory: Path) -> Iterator[ObjectStorage]:
        with running_ministack(directory, tls=(bucket.certificate, bucket.key)) as url:
            yield ObjectStorage("s3://polychrome", S3Endpoint(url, ca_bundle=authority.certificate), directory)

    redis = TlsServer(tmp_path / "redis-tls", authority)
    redis.start()
    environ = {
        "REDIS_URL": redis.tls_url(authority.certificate, own),
        "POLYCHROME_FRONTEND_TLS_CERTIFICATE_FILE": str(api.certificate),
        "POLYCHROME_FRONTEND_TLS_KEY_FILE": str(api.key),
    }
    try:
        with ClusterBuilder(tmp_path / "cluster", storage=storage, environ=environ).start() as cluster:
            cluster.allow_in_logs(
                "Fatal error on SSL protocol"
            )  # uvloop, of a connection that ended while it was closed
            url = cluster.url.replace("http://", "https://")
            _use(url, authority)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{cluster.url}/api/v2/heartbeat", timeout=10)

            first = _serial(url, authority)
            authority.sign("api")
            authority.sign("client")
            wait_until(lambda: _serial(url, authority) != first, "the new certificate of the API", 30)
            redis.restart()
            with _client(url, authority) as client:
                _written(client)
    finally:
        redis.kill()


def _client(url: str, authority: Authority) -> httpx.Client:
    return httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=authority.certificate), timeout=60)


def _written(client: httpx.Client) -> str:
    """The path of a collection, once a record was written to it and found in it."""

    def post(path: str, body: dict[str, Any]) -> httpx.Response:
        return client.post(path, json=body)

    wait_until(lambda: post(COLLECTIONS, {"name": "shop", "get_or_create": True}).is_success, "an open cluster", 60)
    path = f"{COLLECTIONS}/{client.get(f'{COLLECTIONS}/shop').json()['id']}"
    assert post(f"{path}/upsert", {"ids": ["a"], "embeddings": [[1, 0]]}).is_success
    assert post(f"{path}/query", {"query_embeddings": [[1, 0]], "n_results": 1}).json()["ids"] == [["a"]]
    return path


def _use(url: str, authority: Authority) -> None:
    """Writes, reads and compacts."""
    with _client(url, authority) as client:
        path = _written(client)
        wait_until(lambda: client.get(f"{path}/indexing_status").json()["num_unindexed_ops"] == 0, "a compaction", 60)


def _serial(url: str, authority: Authority) -> str:
    """That of the certificate that a new connection is shown."""
    target = httpx.URL(url)
    context = ssl.create_default_context(cafile=authority.certificate)
    with (
        socket.create_connection((target.host, target.port or 0), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=target.host) as secure,
    ):
        found = secure.getpeercert()
    assert found is not None
    return str(found["serialNumber"])
