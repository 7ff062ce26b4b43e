"""The past through the API of a whole cluster: writes, compactions, sealed logs, reads and forks as of then."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.cluster.harness import Cluster
from tests.cluster.waiting import wait_until

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
ROUNDS = 3


class Kept:
    """A collection that keeps its history, written in rounds: in each round n records n.0 to n.3 are added, and one of
    the round before is deleted. It is compacted and trimmed after each.
    """

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.url = ""
        self.times: list[str] = []
        self.expected: list[set[str]] = []

    def fill(self) -> None:
        metadata = {"polychrome:history_s": 3600, "polychrome:shards": 2}
        self.url = f"{COLLECTIONS}/{self.post(COLLECTIONS, {'name': f'k{uuid.uuid4()}', 'metadata': metadata})['id']}"
        present: set[str] = set()
        for number in range(ROUNDS):
            ids = [f"{number}.{place}" for place in range(4)]
            vectors = [[float(number), float(place)] for place in range(4)]
            self.post(f"{self.url}/add", {"ids": ids, "embeddings": vectors, "documents": ids})
            present |= set(ids)
            if number:
                self.post(f"{self.url}/delete", {"ids": [f"{number - 1}.0"]})
                present.discard(f"{number - 1}.0")
            self.times.append(_now())
            self.expected.append(set(present))
            wait_until(self._is_trimmed, "a compacted and trimmed log", 30.0)

    def post(self, url: str, body: dict[str, Any]) -> Any:
        answer = self.client.post(url, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def _is_trimmed(self) -> bool:
        status = self.client.get(f"{self.url}/indexing_status").json()
        return bool(status["num_unindexed_ops"] == 0)


def _now() -> str:
    """A time after all that was acknowledged, and before what is written next."""
    time.sleep(0.01)
    now_s = time.time()
    time.sleep(0.01)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s)) + f".{int(now_s % 1 * 1e6):06d}Z"


@pytest.fixture(scope="module")
def kept(cluster: Cluster) -> Iterator[Kept]:
    with httpx.Client(base_url=cluster.url, timeout=60.0) as client:
        found = Kept(client)
        found.fill()
        yield found


@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_kind_of_read_sees_the_state_of_then(kept: Kept, number: int) -> None:
    as_of, expected = kept.times[number], kept.expected[number]
    assert set(kept.post(f"{kept.url}/get", {"as_of": as_of})["ids"]) == expected
    page = kept.post(f"{kept.url}/get", {"as_of": as_of, "limit": 100, "include": ["documents"]})
    assert set(page["documents"]) == expected
    assert kept.client.get(f"{kept.url}/count", params={"as_of": as_of}).json() == len(expected)
    query = {"query_embeddings": [[0, 0]], "n_results": 100, "as_of": as_of}
    assert set(kept.post(f"{kept.url}/query", query)["ids"][0]) == expected
    rank = {"$knn": {"query": [0, 0], "limit": 100}}
    search = {"searches": [{"rank": rank, "limit": {"limit": 100}}], "as_of": as_of}
    assert set(kept.post(f"{kept.url}/search", search)["ids"][0]) == expected


def test_a_fork_begins_with_the_state_of_then(kept: Kept) -> None:
    forked = kept.post(f"{kept.url}/fork", {"new_name": f"f{uuid.uuid4()}", "as_of": kept.times[0]})
    url = f"{COLLECTIONS}/{forked['id']}"
    assert set(kept.post(f"{url}/get", {})["ids"]) == kept.expected[0]
    kept.post(f"{url}/add", {"ids": ["new"], "embeddings": [[9, 9]]})
    assert kept.client.get(f"{url}/count").json() == len(kept.expected[0]) + 1


def test_a_time_before_the_collection_is_refused_and_what_is_left_is_named(kept: Kept) -> None:
    answer = kept.client.post(f"{kept.url}/get", json={"as_of": "2020-01-01T00:00:00Z"})
    assert answer.status_code == 412
    assert "the oldest position that is left is" in answer.json()["message"]


@pytest.mark.parametrize("bad", [-1, 1.5, "3600", True, 10**12])
def test_a_history_that_is_none_is_refused(kept: Kept, bad: Any) -> None:
    body = {"name": f"k{uuid.uuid4()}", "metadata": {"polychrome:history_s": bad}}
    assert kept.client.post(COLLECTIONS, json=body).status_code == 400


def test_a_write_of_the_class_bucket_is_there_when_it_is_acknowledged(cluster: Cluster, kept: Kept) -> None:
    body = {"ids": ["secured"], "embeddings": [[1.0, 1.0]], "documents": ["kept in the bucket"]}
    answer = kept.client.post(f"{kept.url}/upsert", json=body, headers={"X-Polychrome-Durability": "bucket"})
    assert (answer.status_code, answer.headers["x-polychrome-durability"]) == (200, "bucket")
    folder = cluster.directory / "objects" / kept.url.rpartition("/")[2]
    assert any(b"kept in the bucket" in path.read_bytes() for path in folder.glob("*/log/*.log"))


def test_more_replicas_than_there_are_are_refused(kept: Kept) -> None:
    answer = kept.client.post(f"{kept.url}/delete", json={"ids": ["x"], "durability": "replicas:1"})
    assert answer.status_code == 400
    assert "needs 1 replicas of the log's server, which has 0" in answer.json()["message"]
