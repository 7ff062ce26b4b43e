"""The users of Redis: a cluster runs whole under them, and each is refused what its role has no need of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis as blocking

from polychrome.redis_users import user_lines
from shared.process.config import ROLES
from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.waiting import wait_until
from tests.missing import missing
from tests.redis_server import BINARIES

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
ID = "11111111-1111-4111-8111-111111111111"
LOG, STATE = f"pc:{{{ID}}}:log:0", f"pc:{{{ID}}}:state"

REFUSALS = ("permission", "NOPERM", "ACL failure", "can't access at least one of the keys", "can't run this command")
"""Words of the servers, in answers and in errors of scripts."""

FORBIDDEN: dict[str, list[tuple[Any, ...]]] = {
    "anybody": [
        ("CONFIG", "GET", "*"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("SWAPDB", 0, 1),
        ("KEYS", "*"),
        ("MONITOR",),
        ("SHUTDOWN", "NOSAVE"),
        ("REPLICAOF", "NO", "ONE"),
        ("SAVE",),
        ("ACL", "LIST"),
        ("ACL", "SETUSER", "default", "nopass"),
        ("SCRIPT", "FLUSH"),
        ("FUNCTION", "FLUSH"),
        ("GET", "other:{catalog}:tenants"),
        ("SET", "other:{catalog}:tenants", "x"),
        ("SET", "anything", "x"),
        ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "other:x"),
        ("EVAL", "return redis.call('SET', 'other:x', 'x')", 0),  # a key that it does not name
        ("PUBLISH", "channel", "x"),
    ],
    "frontend": [
        ("XTRIM", LOG, "MAXLEN", 0),
        ("XDEL", LOG, "1-0"),
        ("ZPOPMAX", "pc:{jobs}"),
        ("SET", "pc:{lease}:logservice", "mine"),
        ("HDEL", "pc:{members}:queryworker", "someone"),
        ("SCAN", 0),
        ("CLIENT", "LIST"),
        ("CLIENT", "KILL", "TYPE", "normal"),
    ],
    "logservice": [("RESTORE", LOG, 0, "x"), ("MIGRATE", "127.0.0.1", 1, LOG, 0, 10)],
    "compactor": [
        ("XTRIM", LOG, "MAXLEN", 0),
        ("HSET", "pc:{catalog}:tenants", "t", "{}"),
        ("HGETALL", "pc:{catalog}:control:keys"),
        ("HSET", "pc:{catalog}:control:keys", "k", "{}"),
        ("HSET", "pc:{catalog}:cluster", "verified", "x"),
        ("HSET", "pc:{db:x}:rows", "r", "{}"),
        ("SET", "pc:{lease}:logservice", "mine"),
        ("HDEL", "pc:{members}:queryworker", "someone"),
        ("SCAN", 0),
        ("CLIENT", "LIST"),
    ],
    "queryworker": [
        ("XADD", LOG, "1-0", "p", "0-0"),
        ("EVAL", "return redis.call('XADD', KEYS[1], '1-0', 'p', '0-0')", 1, LOG),
        ("EVAL", "return redis.call('HSET', KEYS[1], 'head', '1')", 1, STATE),
        ("XTRIM", LOG, "MAXLEN", 0),
        ("DEL", LOG),
        ("HSET", STATE, "head", "1"),
        ("HGETALL", "pc:{catalog}:control:keys"),
        ("HGETALL", "pc:{catalog}:tenants"),
        ("HSET", "pc:{catalog}:cluster", "verified", "x"),
        ("HGETALL", "pc:{db:x}:rows"),
        ("ZPOPMAX", "pc:{jobs}"),
        ("SET", "pc:{lease}:logservice", "mine"),
        ("HSET", "pc:{members}:frontend", "someone", "x"),
        ("SCAN", 0),
        ("CLIENT", "LIST"),
    ],
    "embedder": [
        ("XRANGE", LOG, "-", "+"),
        ("HGETALL", STATE),
        ("EVAL", "return redis.call('HGETALL', KEYS[1])", 1, STATE),
        ("HGETALL", "pc:{catalog}:control:keys"),
        ("HSET", "pc:{catalog}:cluster", "verified", "x"),
        ("HSET", "pc:{members}:queryworker", "someone", "x"),
        ("BLPOP", "pc:{witness}:entries::", 1),
        ("SCAN", 0),
        ("CLIENT", "LIST"),
    ],
}


@pytest.fixture(scope="module", params=["valkey", "redis"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    program = BINARIES[request.param]
    if program is None:
        missing(f"{request.param}-server")
    builder = ClusterBuilder(tmp_path_factory.mktemp("users"), embedders=1, redis_program=Path(program))
    with builder.start() as running:
        yield running


def test_a_cluster_writes_reads_compacts_and_is_restored_under_the_users_of_its_roles(cluster: Cluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=60) as client:

        def post(path: str, body: dict[str, Any]) -> Any:
            answer = client.post(path, json=body)
            assert answer.is_success, answer.text
            return answer.json()

        path = f"{COLLECTIONS}/{post(COLLECTIONS, {'name': 'shop'})['id']}"
        post(f"{path}/functions/attach", {"name": "f", "function_id": "record_counter", "output_collection": "counts"})
        post(f"{path}/add", {"ids": ["a", "b"], "embeddings": [[1, 0], [0, 1]], "metadatas": [{"n": 1}, {"n": 2}]})
        post(f"{path}/delete", {"ids": ["b"]})
        query = {"query_embeddings": [[1, 0]], "n_results": 2}
        assert post(f"{path}/query", query)["ids"] == [["a"]]

        def compacted() -> bool:
            found: bool = client.get(f"{path}/indexing_status").json()["num_unindexed_ops"] == 0
            return found

        wait_until(compacted, "a compaction", 60)
        output = client.get(f"{COLLECTIONS}/counts").json()["id"]
        wait_until(lambda: post(f"{COLLECTIONS}/{output}/get", {})["ids"] != [], "a run of the function", 60)
        post(f"{path}/upsert", {"ids": ["c"], "embeddings": [[1, 1]]})
        post(f"{path}/fork", {"new_name": "copy"})
        assert cluster.redis.denials() == []

        cluster.redis.kill()
        shutil.rmtree(cluster.directory / "redis" / "appendonlydir")
        cluster.redis.start()
        wait_until(lambda: client.post(f"{path}/query", json=query).is_success, "a restored cluster", 60)
        assert post(f"{path}/get", {"include": []})["ids"] == ["a", "c"]
        post(f"{path}/upsert", {"ids": ["d"], "embeddings": [[1, 2]]})
        wait_until(compacted, "a compaction", 60)
        client.delete(f"{COLLECTIONS}/copy").raise_for_status()
        assert cluster.redis.denials() == []


def test_an_operator_looks_at_a_cluster_by_the_user_of_the_log_service(cluster: Cluster, tmp_path: Path) -> None:
    urls = {"REDIS_URL": cluster.redis.urls["logservice"], "POLYCHROME_BUCKET_URL": cluster.objects.url}
    for words in (["status"], ["verify"]):
        command = [sys.executable, "-m", "polychrome", *words]
        ran = subprocess.run(command, cwd=tmp_path, env=os.environ | urls, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert cluster.redis.denials() == []


def test_each_user_is_refused_what_its_role_has_no_need_of(cluster: Cluster) -> None:
    assert set(FORBIDDEN) == {"anybody", *ROLES}
    for role in ROLES:
        with blocking.Redis.from_url(cluster.redis.urls[role]) as client:
            assert client.ping()
            for command in (*FORBIDDEN["anybody"], *FORBIDDEN[role]):
                with pytest.raises(blocking.ResponseError) as refused:
                    client.execute_command(*command)
                assert any(word in str(refused.value) for word in REFUSALS), (role, command)
    assert cluster.redis.denials(), "Redis keeps account of what it refuses"


def test_a_user_is_let_in_by_its_own_password_alone(cluster: Cluster) -> None:
    password = cluster.redis.urls["embedder"].split(":")[2].split("@")[0]
    address = cluster.redis.url.rpartition("@")[2]
    for wrong in (f"frontend:{password}@", "embedder:nonsense@", f":{password}@", ""):
        with (
            blocking.Redis.from_url(f"redis://{wrong}{address}") as client,
            pytest.raises(blocking.AuthenticationError),
        ):
            client.ping()
    assert cluster.redis.denials()


@pytest.mark.parametrize(("prefix", "pattern"), [("pc", "~pc:{dirty}"), ("a*b[c]", r"~a\*b\[c\]:{dirty}")])
def test_a_prefix_is_no_pattern(prefix: str, pattern: str) -> None:
    (line,) = user_lines({"compactor": "word"}, prefix)
    assert f" {pattern} " in line
    assert "word" not in line


@pytest.mark.parametrize("prefix", ["a b", 'a"', "a(b)", "a\n"])
def test_a_prefix_that_would_end_the_rule_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        user_lines({"compactor": "word"}, prefix)
