"""Backups of a real cluster by the command line, and what comes back from them."""

import datetime
import io
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from polychrome.__main__ import main
from polychrome.local.process import Process
from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.waiting import wait_until

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
ACCOUNTS = [f"account-{number}" for number in range(12)]
BALANCE = 100


class Refused(Exception):
    """A command ended with exit code 2; the message is what it said."""


class Line:
    """The command line beside a cluster, and a client of it."""

    def __init__(self, cluster: Cluster) -> None:
        self._environ = {
            **cluster.objects.environ,
            "REDIS_URL": cluster.redis.urls["logservice"],  # as `docker compose exec logservice` has it
            "POLYCHROME_BUCKET_URL": cluster.objects.url,
        }
        self.http = httpx.Client(base_url=cluster.url, timeout=60)

    def close(self) -> None:
        self.http.close()

    def answer(self, *words: str, code: int = 0) -> Any:
        """The JSON that the command prints. Raises Refused."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self._environ),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main([*words, "--json"])
        if ended.value.code == 2:
            raise Refused(err.getvalue())
        assert ended.value.code == code
        return json.loads(out.getvalue())

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.http.post(f"{COLLECTIONS}{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def create(self, name: str, shards: int = 1, **metadata: Any) -> str:
        return str(self.post("", {"name": name, "metadata": {"polychrome:shards": shards, **metadata}})["id"])

    def id_of(self, name: str) -> str:
        answer = self.http.get(f"{COLLECTIONS}/{name}")
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def records(self, collection_id: str) -> dict[str, Any]:
        """Everything in the collection, by column."""
        include = ["embeddings", "documents", "metadatas", "uris"]
        got: dict[str, Any] = self.post(f"/{collection_id}/get", {"include": include})
        return got

    def indexed(self, collection_id: str) -> None:
        def done() -> bool:
            status = self.http.get(f"{COLLECTIONS}/{collection_id}/indexing_status").json()
            return bool(status["num_unindexed_ops"] == 0)

        wait_until(done, "a compacted collection", 60)


@pytest.fixture
def line(cluster: Cluster) -> Iterator[Line]:
    with closing(Line(cluster)) as opened:
        yield opened


def rows(start: int, end: int) -> dict[str, Any]:
    return {
        "ids": [f"row-{number}" for number in range(start, end)],
        "embeddings": [[float(number), 1.0, -2.5, 0.125] for number in range(start, end)],
        "documents": [f"document {number}" for number in range(start, end)],
        "metadatas": [{"n": number, "half": number / 2, "even": number % 2 == 0} for number in range(start, end)],
    }


@contextmanager
def transfers(line: Line, collection_id: str, seed: int) -> Iterator[None]:
    """Moves money between accounts, two of them in each batch, until the end."""
    stop = threading.Event()
    balances = dict.fromkeys(ACCOUNTS, BALANCE)

    def write() -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            source, target = rng.sample(ACCOUNTS, 2)
            amount = rng.randint(1, 20)
            balances[source] -= amount
            balances[target] += amount
            line.post(f"/{collection_id}/upsert", of_accounts({one: balances[one] for one in (source, target)}))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send(signal.SIGCONT)


def of_accounts(balances: dict[str, int]) -> dict[str, Any]:
    return {
        "ids": list(balances),
        "embeddings": [[float(balance), 0.0] for balance in balances.values()],
        "metadatas": [{"balance": balance} for balance in balances.values()],
    }


def total(line: Line, collection_id: str) -> int:
    return sum(metadata["balance"] for metadata in line.records(collection_id)["metadatas"])


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()


def test_a_backup_under_load_is_of_one_moment_of_all_shards(line: Line, tmp_path: Path) -> None:
    bank = line.create("bank-backed-up", shards=3)
    line.post(f"/{bank}/upsert", of_accounts(dict.fromkeys(ACCOUNTS, BALANCE)))
    destination = str(tmp_path / "backups")
    with transfers(line, bank, seed=1):
        for number in range(4):
            time.sleep(0.4)
            taken = line.answer("backup", destination, "--collection", "bank-backed-up")
            restored = line.answer(
                "restore", destination, "--backup", taken["backup"], "--collection", bank, "--as", f"bank-{number}"
            )
            assert total(line, restored["ids"][bank]) == BALANCE * len(ACCOUNTS)


def test_what_is_restored_is_equal_and_lives_on(line: Line, tmp_path: Path) -> None:
    original = line.create("original", shards=2)
    line.post(f"/{original}/add", rows(0, 200))
    line.indexed(original)
    line.post(f"/{original}/upsert", rows(150, 260))  # of these some are in the log when the backup is taken
    line.post(f"/{original}/delete", {"ids": ["row-3", "row-255"]})
    destination = str(tmp_path / "backups")
    line.answer("backup", destination, "--collection", "original")
    line.post(f"/{original}/delete", {"ids": ["row-4"]})
    copy = line.answer("restore", destination, "--collection", "original", "--as", "copy")["ids"][original]
    line.post(f"/{copy}/delete", {"ids": ["row-4"]})
    assert line.records(copy) == line.records(original)
    line.indexed(copy)
    assert line.records(copy) == line.records(original)
    assert line.http.get(f"{COLLECTIONS}/copy").json()["dimension"] == 4


def test_files_are_copied_once(line: Line, tmp_path: Path) -> None:
    collection = line.create("copied-once")
    line.post(f"/{collection}/add", rows(0, 100))
    line.indexed(collection)
    destination = str(tmp_path / "backups")
    first = line.answer("backup", destination, "--collection", "copied-once")
    second = line.answer("backup", destination, "--collection", "copied-once")
    assert first["objects_copied"] > 0
    assert (second["objects_copied"], second["bytes_copied"]) == (0, 0)
    assert second["objects_reused"] == first["objects_copied"]
    listed = line.answer("backup", "list", destination)["backups"]
    assert [each["backup"] for each in listed] == [first["backup"], second["backup"]]


def test_pruning_keeps_what_the_backups_that_stay_need(line: Line, tmp_path: Path) -> None:
    collection = line.create("pruned")
    destination = str(tmp_path / "backups")
    for start in (0, 50, 100):
        line.post(f"/{collection}/upsert", rows(start, start + 60))
        line.indexed(collection)
        line.answer("backup", destination, "--collection", "pruned")
    pruned = line.answer("backup", "prune", destination, "--keep", "1")
    assert len(pruned["pruned"]) == 2
    assert pruned["objects_removed"] > 0
    copy = line.answer("restore", destination, "--collection", "pruned", "--as", "unpruned")["ids"][collection]
    assert line.records(copy) == line.records(collection)


def test_nothing_is_pruned_while_a_backup_is_taken(line: Line, tmp_path: Path) -> None:
    running = tmp_path / "running"
    running.mkdir()
    (running / "20260101T000000.000Z").touch()
    with pytest.raises(Refused, match=r"20260101T000000\.000Z is being taken"):
        line.answer("backup", "prune", str(tmp_path), "--keep", "1")


def test_a_moment_between_two_writes_comes_back(cluster: Cluster, line: Line, tmp_path: Path) -> None:
    collection = line.create("moments", shards=2)
    destination = str(tmp_path / "backups")
    line.post(f"/{collection}/add", rows(0, 20))
    line.indexed(collection)
    with stopped(cluster.process("compactor-1")):  # what is compacted has lost its moments
        line.post(f"/{collection}/add", rows(20, 30))
        time.sleep(0.05)
        moment = now()
        time.sleep(0.05)
        line.post(f"/{collection}/delete", {"where": {"n": {"$gte": 0}}})
        line.answer("backup", destination, "--collection", "moments")
    options = ("--collection", "moments", "--as", "then", "--at", moment)
    then = line.answer("restore", destination, *options)["ids"][collection]
    assert len(line.records(then)["ids"]) == 30
    too_old = ("--collection", "moments", "--as", "before", "--at", "2020-01-01T00:00:00Z")
    with pytest.raises(Refused, match="an older one may"):
        line.answer("restore", destination, *too_old)


def test_a_collection_with_a_history_comes_back_as_of_any_of_its_moments(line: Line, tmp_path: Path) -> None:
    collection = line.create("history", shards=2, **{"polychrome:history_s": 3600})
    moments = []
    for number in range(4):
        line.post(f"/{collection}/add", rows(10 * number, 10 * number + 10))
        time.sleep(0.01)
        moments.append(now())
        time.sleep(0.01)
        if number % 2:
            line.indexed(collection)
    taken = line.answer("backup", str(tmp_path), "--collection", "history")
    stored = sum(path.is_file() for kind in ("files", "log") for path in (tmp_path / kind).rglob("*"))
    assert taken["objects_copied"] == stored, "what several manifests name is copied once"
    for number, moment in enumerate(moments):
        options = ("--collection", "history", "--as", f"history-{number}", "--at", moment)
        restored = line.answer("restore", str(tmp_path), *options)["ids"][collection]
        assert sorted(line.records(restored)["ids"]) == sorted(rows(0, 10 * number + 10)["ids"])


@pytest.mark.parametrize("kind", ["backups", "files", "log"])
def test_a_damaged_backup_is_named_and_restores_nothing(
    cluster: Cluster, line: Line, tmp_path: Path, kind: str
) -> None:
    name = f"damaged-{kind}"
    collection = line.create(name)
    line.post(f"/{collection}/add", rows(0, 50))
    line.indexed(collection)
    with stopped(cluster.process("compactor-1")):
        line.post(f"/{collection}/add", rows(50, 60))
        line.answer("backup", str(tmp_path), "--collection", name)
    assert line.answer("backup", "verify", str(tmp_path))["damaged"] == []
    rng = random.Random(kind)
    path = rng.choice(sorted(path for path in (tmp_path / kind).rglob("*") if path.is_file()))
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1
    path.write_bytes(data)
    [found] = line.answer("backup", "verify", str(tmp_path), code=1)["damaged"]
    assert path.name.removesuffix(".json.gz") in found["what"]
    assert len(found["backups"]) == 1
    with pytest.raises(Refused, match=r"polychrome restore: .*(checksum|cannot be read)"):
        line.answer("restore", str(tmp_path), "--collection", name, "--as", f"{name}-copy")
    assert line.http.get(f"{COLLECTIONS}/{name}-copy").status_code == 404


def test_a_name_that_is_taken_is_refused_before_anything_is_done(line: Line, tmp_path: Path) -> None:
    collection = line.create("taken")
    line.post(f"/{collection}/add", rows(0, 5))
    line.answer("backup", str(tmp_path), "--collection", "taken")
    with pytest.raises(Refused, match=r"default_tenant/default_database/taken\] already exists"):
        line.answer("restore", str(tmp_path), "--collection", "taken")
    before = line.answer("backup", "list", str(tmp_path))
    with pytest.raises(Refused, match="no collection no-such-collection; nothing was backed up"):
        line.answer("backup", str(tmp_path), "--collection", "taken", "--collection", "no-such-collection")
    assert line.answer("backup", "list", str(tmp_path)) == before


def test_the_newest_backup_that_has_what_is_asked_for_is_restored(line: Line, tmp_path: Path) -> None:
    first, second = line.create("chosen-first"), line.create("chosen-second")
    line.post(f"/{first}/add", rows(0, 5))
    destination = str(tmp_path)
    with pytest.raises(Refused, match="there is no backup in"):
        line.answer("restore", destination)
    with pytest.raises(Refused, match="there is no backup in"):
        line.answer("backup", "verify", destination)
    line.answer("backup", destination, "--collection", first)
    line.answer("backup", destination, "--collection", second)
    restored = line.answer("restore", destination, "--collection", "chosen-first", "--as", "chosen-copy")
    assert len(line.records(restored["ids"][first])["ids"]) == 5
    for refused, why in [
        (("--collection", "chosen-third"), "no backup that has a collection chosen-third"),
        ((), "no backup of everything: name a backup by --backup"),
        (("--collection", first, "--as", "later", "--at", now()), "without --at the newest one is taken"),
    ]:
        with pytest.raises(Refused, match=why):
            line.answer("restore", destination, *refused)


def test_an_empty_cluster_gets_everything_under_its_own_ids(line: Line, tmp_path: Path) -> None:
    collection = line.create("moving", shards=2)
    line.post(f"/{collection}/add", rows(0, 40))
    line.http.post("/api/v2/tenants", json={"name": "backed-up"}).raise_for_status()
    line.http.post("/api/v2/tenants/backed-up/databases", json={"name": "empty"}).raise_for_status()
    expected = line.records(collection)
    destination = str(tmp_path / "backups")
    taken = line.answer("backup", destination)
    with ClusterBuilder(tmp_path / "cluster").start() as other, closing(Line(other)) as elsewhere:
        restored = elsewhere.answer("restore", destination)
        assert len(restored["ids"]) == taken["collections"]
        assert all(before == after for before, after in restored["ids"].items())
        assert elsewhere.records(collection) == expected
        assert elsewhere.http.get("/api/v2/tenants/backed-up/databases/empty").is_success


def test_a_collection_whose_sealed_log_ends_before_its_manifest_is_backed_up(line: Line, tmp_path: Path) -> None:
    """Writes of the class `bucket` seal their log; later ones are compacted and trimmed unsealed."""
    collection = line.create("mixed")
    line.post(f"/{collection}/add", {**rows(0, 10), "durability": "bucket"})
    for start in (10, 20):
        line.indexed(collection)
        line.post(f"/{collection}/add", rows(start, start + 10))
    line.indexed(collection)
    before = line.records(collection)
    line.answer("backup", str(tmp_path))
    line.answer("restore", str(tmp_path), "--collection", "mixed", "--as", "again")
    assert line.records(line.id_of("again")) == before
