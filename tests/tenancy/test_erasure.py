"""Erasure over a real cluster: after the receipt, no byte on any disk has what was erased."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from polychrome.__main__ import main
from polychrome.verify.bucket import Sample
from polychrome.verify.commands import Verified, verify
from polychrome.verify.model import Report
from shared.objects.open import open_store
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys
from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.waiting import wait_until

BASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"
ERASURES = "/polychrome/v1/erasures"
PLACE = {"tenant": "default_tenant", "database": "default_database"}
WAIT_S = 90


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    environ = {
        "POLYCHROME_LOGSERVICE_ERASE_GRACE_S": "1",
        "POLYCHROME_LOGSERVICE_GRACE_S": "3600",
        "POLYCHROME_LOGSERVICE_RETENTION_S": "3600",
        "POLYCHROME_LOGSERVICE_HISTORY_S": "3600",
    }
    builder = ClusterBuilder(tmp_path_factory.mktemp("erasure"), shards_default=2, environ=environ)
    with builder.start() as running:
        yield running


class Writings:
    """A collection with records of which some are going to be erased."""

    def __init__(self, cluster: Cluster, client: httpx.Client) -> None:
        self.cluster = cluster
        self.client = client
        self.name = f"writings-{secrets.token_hex(4)}"
        body = {"name": self.name, "metadata": {"polychrome:shards": 2}}
        self.id = self.do("POST", BASE, body)["id"]
        self.marks: dict[str, tuple[str, bytes]] = {}

    def do(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.client.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def write(self, *ids: str) -> None:
        """Records with a text and a vector that are nowhere else."""
        texts = [f"unmistakable {secrets.token_hex(16)}" for _ in ids]
        vectors = np.random.default_rng(random.getrandbits(32)).random((len(ids), 8), np.float32)
        for record_id, text, vector in zip(ids, texts, vectors, strict=True):
            self.marks[record_id] = (text, vector.tobytes())
        body = {
            "ids": list(ids),
            "documents": texts,
            "embeddings": vectors.tolist(),
            "metadatas": [{"text": text} for text in texts],
        }
        self.do("POST", f"{BASE}/{self.id}/upsert", body)

    def count(self) -> int:
        return int(self.do("GET", f"{BASE}/{self.id}/count"))

    def compacted(self) -> None:
        def done() -> bool:
            status = self.do("GET", f"{BASE}/{self.id}/indexing_status")
            return bool(status["num_unindexed_ops"] == 0)

        wait_until(done, "everything compacted", WAIT_S)

    def erase(self, **what: Any) -> Any:
        asked = self.do("POST", ERASURES, {**PLACE, **what})
        return self.receipt(asked["id"])

    def receipt(self, erasure: str) -> Any:
        wait_until(lambda: self.do("GET", f"{ERASURES}/{erasure}")["state"] == "done", "a receipt", WAIT_S)
        return self.do("GET", f"{ERASURES}/{erasure}")


@pytest.fixture
def writings(cluster: Cluster) -> Iterator[Writings]:
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        yield Writings(cluster, client)


def files_with(cluster: Cluster, *wanted: bytes) -> list[Path]:
    """Every file below the cluster's directory that has one of these byte strings: Redis' files, the bucket, the
    caches of all processes, their logs. Nothing there is compressed but snapshots of the catalog.
    """
    found = []
    for folder, _, names in os.walk(cluster.directory):
        for path in (Path(folder) / name for name in names):
            try:
                data = path.read_bytes()
            except OSError:
                continue
            if any(each in data for each in wanted):
                found.append(path)
    return found


def bytes_of(writings: Writings, *ids: str) -> list[bytes]:
    return [data for record_id in ids for data in (writings.marks[record_id][0].encode(), writings.marks[record_id][1])]


def test_records_are_gone_from_every_file_and_all_others_stay(cluster: Cluster, writings: Writings) -> None:
    ids = [f"r{number}" for number in range(40)]
    writings.write(*ids[:30])
    writings.compacted()
    writings.write(*ids[30:])
    writings.do("POST", f"{BASE}/{writings.id}/query", {"query_embeddings": [[0.0] * 8], "n_results": 3})
    erased, kept = ["r1", "r7", "r35"], ["r2", "r36"]
    assert files_with(cluster, *bytes_of(writings, *erased)), "they are somewhere before"
    receipt = writings.erase(collection=writings.name, ids=erased)
    assert receipt["remaining"] == []
    assert not receipt["late"]
    assert files_with(cluster, *bytes_of(writings, *erased)) == []
    assert files_with(cluster, *bytes_of(writings, *kept))
    assert writings.count() == 37
    got = writings.do("POST", f"{BASE}/{writings.id}/get", {"include": ["documents"]})
    assert dict(zip(got["ids"], got["documents"], strict=True)) == {
        record_id: text for record_id, (text, _) in writings.marks.items() if record_id not in erased
    }


def test_a_collection_is_gone_from_every_file_with_its_name(cluster: Cluster, writings: Writings) -> None:
    writings.write(*(f"r{number}" for number in range(20)))
    writings.compacted()
    receipt = writings.erase(collection=writings.name)
    assert receipt["remaining"] == []
    assert files_with(cluster, *bytes_of(writings, *writings.marks)) == []
    assert not list((cluster.directory / "objects").rglob(f"{writings.id}/**/*.*"))
    assert writings.client.get(f"{BASE}/{writings.name}").status_code == 404


def verified(cluster: Cluster) -> Report:
    async def prove() -> Report:
        keys = Keys()
        async with open_store(cluster.objects.url) as objects, open_verified_redis(cluster.redis.url, keys) as redis:
            return await verify(Verified(objects, redis, keys), Sample(1.0), None)

    return asyncio.run(prove())


def test_an_erasure_goes_on_when_the_log_service_and_the_compactor_are_killed(
    cluster: Cluster, writings: Writings
) -> None:
    writings.write(*(f"r{number}" for number in range(20)))
    writings.compacted()
    asked = writings.do("POST", ERASURES, {**PLACE, "collection": writings.id, "ids": ["r3"]})
    for name in ("compactor-1", "logservice-1", "compactor-1", "logservice-1"):
        time.sleep(random.uniform(0.0, 1.5))
        cluster.restart(name)
    assert writings.receipt(asked["id"])["remaining"] == []
    assert files_with(cluster, *bytes_of(writings, "r3")) == []
    assert writings.count() == 19


def test_a_fork_keeps_what_it_has_a_right_to_and_the_receipt_says_so(cluster: Cluster, writings: Writings) -> None:
    writings.write("r1", "r2")
    writings.compacted()
    fork = writings.do("POST", f"{BASE}/{writings.id}/fork", {"new_name": f"{writings.name}-fork"})
    receipt = writings.erase(collection=writings.name, ids=["r1"])
    assert [left["why"] for left in receipt["remaining"]]
    assert all(fork["id"] in left["why"] for left in receipt["remaining"])
    got = writings.do("POST", f"{BASE}/{fork['id']}/get", {"ids": ["r1"], "include": ["documents"]})
    assert got["documents"] == [writings.marks["r1"][0]]
    assert writings.count() == 1


def test_receipts_are_proved_from_the_bucket_and_redis(cluster: Cluster, writings: Writings) -> None:
    writings.write("r1", "r2", "r3")
    writings.compacted()
    [segment, *_] = sorted((cluster.directory / "objects" / writings.id).glob("*/segments/*/records.arrow"))
    old = segment.read_bytes()
    receipt = writings.erase(collection=writings.name, ids=["r1", "r2", "r3"])
    report = verified(cluster)
    assert report.counts["receipts"] >= 1
    assert not report.findings
    segment.parent.mkdir(parents=True, exist_ok=True)
    segment.write_bytes(old)
    assert [finding.name for finding in verified(cluster).findings] == [
        str(segment.relative_to(cluster.directory / "objects"))
    ]
    segment.unlink()
    path = cluster.directory / "objects" / "erasures" / f"{receipt['id']}.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"requested_s": 1', b'"requested_s": 2'))
    assert [finding.name for finding in verified(cluster).findings] == [f"erasures/{receipt['id']}.json"]
    path.write_bytes(whole)


def test_the_command_waits_for_the_receipt(
    cluster: Cluster, writings: Writings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writings.write("r1", "r2")
    (tmp_path / "ids").write_text("r1\n")
    where = ["--tenant", PLACE["tenant"], "--database", PLACE["database"], "--collection", writings.name]
    with pytest.raises(SystemExit) as ended:
        main(["erase", *where, "--ids", str(tmp_path / "ids"), "--wait", "--url", cluster.url])
    assert ended.value.code == 0
    assert f"removed of {writings.id}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as refused:
        main(["erase", "--url", cluster.url])
    assert refused.value.code != 0
    with pytest.raises(SystemExit):
        main(["erase", "list", "--url", cluster.url])
    assert f"/{writings.id}  done" in capsys.readouterr().out
    assert writings.count() == 1


def test_what_is_asked_for_has_to_be_there(writings: Writings) -> None:
    for body, status in (
        ({"tenant": "nobody"}, 404),
        ({**PLACE, "database": "nowhere"}, 404),
        ({**PLACE, "collection": "nothing"}, 404),
        ({**PLACE, "ids": ["a"]}, 400),
        ({**PLACE, "collections": "misspelt"}, 422),
    ):
        assert writings.client.post(ERASURES, json=body).status_code == status, body
    assert writings.client.get(f"{ERASURES}/{'0' * 32}").status_code == 404
