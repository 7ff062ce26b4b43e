"""Several hosts: the processes of compose.yaml, two frontends, two compactors, three query workers, two shards, S3."""

import itertools
import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.cluster.harness import Cluster
from tests.cluster.waiting import wait_until
from tests.contract.case_files import Case
from tests.contract.recorded import cases, explain
from tests.contract.replaying import replay_case

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
SKIPPED_AREAS = frozenset({"local_only", "local_quirks", "no_server_embedding", "reset_disabled"})
ROWS = 3000


class RoundRobin(httpx.HTTPTransport):
    """Sends every request to the next frontend, as a load balancer would."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__()
        self._urls = itertools.cycle([httpx.URL(url) for url in urls])

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        target = next(self._urls)
        request.url = request.url.copy_with(host=target.host, port=target.port)
        return super().handle_request(request)


@pytest.fixture(scope="module")
def balanced(topology: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=topology.url, transport=RoundRobin(topology.urls), timeout=60.0) as client:
        yield client


@pytest.mark.parametrize("case", cases("cases.jsonl", SKIPPED_AREAS))
def test_every_request_through_another_frontend_answers_as_one_server_did(balanced: httpx.Client, case: Case) -> None:
    mismatches = replay_case(balanced, case)
    assert not mismatches, explain(case, mismatches)


@pytest.fixture
def collection(balanced: httpx.Client) -> str:
    created = balanced.post(COLLECTIONS, json={"name": f"topology-{uuid.uuid4().hex[:12]}"})
    created.raise_for_status()
    return f"{COLLECTIONS}/{created.json()['id']}"


def fill(client: httpx.Client, collection: str, rows: int = ROWS) -> set[str]:
    ids = [f"row-{number}" for number in range(rows)]
    embeddings = [[float(number), 1.0] for number in range(rows)]
    client.post(f"{collection}/add", json={"ids": ids, "embeddings": embeddings}).raise_for_status()
    return set(ids)


def stored_ids(client: httpx.Client, collection: str) -> set[str]:
    answer = client.post(f"{collection}/get", json={"include": []})
    answer.raise_for_status()
    return set(answer.json()["ids"])


def nearest(client: httpx.Client, collection: str, x: float) -> str:
    query = {"query_embeddings": [[x, 1.0]], "n_results": 1, "include": []}
    answer = client.post(f"{collection}/query", json=query)
    answer.raise_for_status()
    return str(answer.json()["ids"][0][0])


def compacted(client: httpx.Client, collection: str) -> bool:
    status = client.get(f"{collection}/indexing_status").raise_for_status().json()
    return bool(status["num_indexed_ops"] >= ROWS)


def test_a_write_through_one_frontend_is_read_through_the_other(topology: Cluster, collection: str) -> None:
    for number in range(20):
        writer, reader = (topology.urls[(number + turn) % 2] for turn in (0, 1))
        httpx.post(f"{writer}{collection}/upsert", json={"ids": [f"id-{number}"], "embeddings": [[1.0, float(number)]]})
        assert httpx.get(f"{reader}{collection}/count").json() == number + 1


def test_answers_stay_the_same_through_compaction(balanced: httpx.Client, collection: str) -> None:
    ids = fill(balanced, collection)
    for _ in range(2):
        assert stored_ids(balanced, collection) == ids
        assert nearest(balanced, collection, 1234.2) == "row-1234"
        wait_until(lambda: compacted(balanced, collection), "compacted", 60)
    assert balanced.get(f"{collection}/count").json() == ROWS


def test_a_dead_worker_is_replaced_by_the_next_one(topology: Cluster, balanced: httpx.Client, collection: str) -> None:
    ids = fill(balanced, collection)
    workers = topology.role("queryworker")
    for worker in workers[:2]:
        worker.kill()
    try:
        wait_until(lambda: stored_ids(balanced, collection) == ids, "readable through the one worker left", 20)
    finally:
        for worker in workers[:2]:
            worker.start()
        topology.wait_ready(*workers[:2])
    assert stored_ids(balanced, collection) == ids


def test_object_storage_that_was_away_is_used_again(topology: Cluster, balanced: httpx.Client, collection: str) -> None:
    if not topology.objects.can_be_stopped:
        pytest.skip("this store keeps its objects in memory")
    topology.allow_in_logs("object storage")
    topology.objects.stop()
    ids = fill(balanced, collection)
    assert stored_ids(balanced, collection) == ids
    topology.objects.start()
    wait_until(lambda: compacted(balanced, collection), "compacted", 60)
    assert stored_ids(balanced, collection) == ids


def test_redis_that_was_killed_has_everything_and_nobody_needs_a_restart(
    topology: Cluster, balanced: httpx.Client, collection: str
) -> None:
    ids = fill(balanced, collection)
    topology.redis.kill()
    answer = balanced.post(f"{collection}/upsert", json={"ids": ["late"], "embeddings": [[0.0, 0.0]]})
    assert answer.status_code == 503
    topology.redis.start()
    wait_until(lambda: stored_ids(balanced, collection) == ids, "readable again", 20)
    topology.wait_ready()
