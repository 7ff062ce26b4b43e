"""`polychrome verify` as people and scripts call it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
from pathlib import Path
from unittest import mock

import pytest

from polychrome.__main__ import main
from polychrome.local.process import Process
from polychrome.local.redis_server import answers, redis_server
from shared.redis.keys import Keys
from tests.cluster.waiting import wait_until
from tests.polychrome.verify.small_cluster import small_cluster
from tests.redis_server import RedisServer


def run(*words: str, **environ: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environ),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main(words)
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.getvalue(), err.getvalue()


async def test_the_exit_code_tells_whole_from_damaged_from_not_done(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        environ = {
            "REDIS_URL": valkey_server.url,
            "POLYCHROME_REDIS_PREFIX": keys.prefix,
            "POLYCHROME_BUCKET_URL": cluster.bucket.as_uri(),
        }

        async def verify(*words: str, **environ: str) -> tuple[int, str, str]:
            return await asyncio.to_thread(lambda: run("verify", *words, **environ))

        code, out, _ = await verify(**environ)
        assert code == 0
        assert "entries" in out
        assert out.endswith("whole\n")
        code, out, _ = await verify(str(cluster.bucket), "--json")
        assert code == 0
        assert json.loads(out)["redis"] is False
        paths = await asyncio.to_thread(lambda: sorted(cluster.bucket.glob("*/1/segments/*/records.arrow")))
        path = paths[-1]
        name = path.relative_to(cluster.bucket).as_posix()
        await asyncio.to_thread(path.unlink)
        code, out, _ = await verify("--json", **environ)
        assert code == 1
        report = json.loads(out)
        assert [(finding["name"], finding["what"]) for finding in report["findings"]] == [(name, "is missing")]
        assert report["redis"] is True
        collection = cluster.collection
        called = (collection.tenant, collection.database, collection.name)
        named = [(each["tenant"], each["database"], each["collection_name"]) for each in report["findings"]]
        assert named == [called]
        for place in ((), (str(cluster.bucket),)):
            _, out, _ = await verify(*place, **environ)
            assert f"{name}  is missing; of {'/'.join(called)}" in out
        code, out, _ = await asyncio.to_thread(lambda: run("repair", "--json", **environ))
        assert code == 1
        planned = json.loads(out)
        assert [(step["finding"]["name"], step["remedy"]) for step in planned["steps"]] == [
            (name, "have the segment rewritten")
        ]
        assert planned["done"] is False
        assert planned["steps"][0]["finding"]["collection_name"] == collection.name
        code, out, _ = await verify("--sample", "0.000001", "--seed", "1", **environ)
        assert code == 0
        assert "a sample" in out
        code, _, err = await verify("--data-dir", str(tmp_path / "nowhere"))
        assert code == 2
        assert "no cluster is running" in err
        code, _, err = await verify("--sample", "1.5", **environ)
        assert code == 2
        code, _, err = await verify("ftp://somewhere")
        assert code == 2
        code, out, err = await verify(**{**environ, "REDIS_URL": "redis://127.0.0.1:1"})
        assert code == 1, "what is damaged in the bucket counts, whether or not Redis can be read"


async def test_of_a_cluster_whose_redis_is_away_the_bucket_alone_is_verified_which_is_said(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        data_dir = tmp_path / "data"
        await asyncio.to_thread(data_dir.mkdir)
        await asyncio.to_thread((data_dir / "objects").symlink_to, cluster.bucket)
        code, out, err = await asyncio.to_thread(lambda: run("verify", "--data-dir", str(data_dir)))
        assert code == 2, "what Redis held was not verified"
        assert "the bucket is whole; what Redis holds was not verified: no append-only file is in" in out
        assert "the bucket alone is verified: no append-only file is in" in err
        environ = {"REDIS_URL": "redis://127.0.0.1:1", "POLYCHROME_BUCKET_URL": cluster.bucket.as_uri()}
        code, out, _ = await asyncio.to_thread(lambda: run("verify", "--json", **environ))
        assert code == 2
        assert "refused" in json.loads(out)["redis_problem"]
        code, _, err = await asyncio.to_thread(lambda: run("repair", "--data-dir", str(data_dir)))
        assert code == 2
        assert "Redis cannot be reached" in err


def test_what_is_no_bucket_of_a_cluster_is_not_called_whole(tmp_path: Path) -> None:
    code, out, err = run("verify", str(tmp_path))
    assert (code, out) == (2, "")
    assert f"nothing of a cluster is in {tmp_path}" in err
    (tmp_path / "objects" / "catalog").mkdir(parents=True)
    (tmp_path / "objects" / "catalog" / "something").touch()
    code, out, err = run("verify", str(tmp_path))
    assert (code, out) == (2, "")
    assert f"is named by --data-dir {tmp_path}" in err
    code, _, err = run("verify", str(tmp_path / "misspelt"))
    assert code == 2
    assert "there is no directory" in err
    assert not (tmp_path / "misspelt").exists()


async def test_of_a_cluster_that_does_not_run_the_append_only_file_is_verified(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    server = redis_server(data_dir / "redis")
    process = Process(server.prepare(), tmp_path / "redis.log")
    process.start()
    try:
        await asyncio.to_thread(wait_until, lambda: answers(server.url), "an answering server")
        async with small_cluster(server.url, Keys(), tmp_path / "small", rows=30) as cluster:
            await asyncio.to_thread((data_dir / "objects").symlink_to, cluster.bucket)
    finally:
        process.kill()
    verify = ("verify", "--json", "--data-dir", str(data_dir))
    code, out, err = await asyncio.to_thread(lambda: run(*verify))
    assert (code, err) == (0, "")
    whole = json.loads(out)
    assert whole["redis"] is True
    [written] = (data_dir / "redis" / "appendonlydir").glob("*.incr.aof")
    data = bytearray(await asyncio.to_thread(written.read_bytes))
    data[data.index(b"XADD") - 3] ^= 1  # the length of a command's name
    await asyncio.to_thread(written.write_bytes, data)
    code, out, _ = await asyncio.to_thread(lambda: run(*verify))
    assert code == 1
    assert f"redis/appendonlydir/{written.name}" in {finding["name"] for finding in json.loads(out)["findings"]}
    assert await asyncio.to_thread(written.read_bytes) == data, "the file is only read"
