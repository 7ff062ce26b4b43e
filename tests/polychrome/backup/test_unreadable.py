"""A collection that cannot be read is named in the backup; the others are backed up, and what lacks it says so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from polychrome.__main__ import main
from shared.catalog import Catalog, Collection, Database
from shared.log.log import Log
from shared.redis.keys import Keys
from tests.redis_server import RedisServer, catalog, database, keys, redis, redis_server
from tests.shared.log.appending import append, make_collection

__all__ = ["catalog", "database", "keys", "redis", "redis_server"]

PATH = "default_tenant/default_database/"


class Ended(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Line:
    """The command line beside a cluster without processes. `whole` can be read, `broken` cannot."""

    def __init__(
        self, backups: Path, capture: pytest.CaptureFixture[str], whole: Collection, broken: Collection
    ) -> None:
        self._backups = str(backups)
        self._capture = capture
        self.whole, self.broken = whole, broken

    async def run(self, *words: str) -> Ended:
        def call() -> int:
            with pytest.raises(SystemExit) as ended:
                main([self._backups if word == "BACKUPS" else word for word in words])
            return int(ended.value.code or 0)

        code = await asyncio.to_thread(call)
        return Ended(code, *self._capture.readouterr())

    async def answer(self, code: int, *words: str) -> Any:
        ended = await self.run(*words, "--json")
        assert ended.code == code, ended
        return json.loads(ended.out)


@pytest.fixture(params=["state lost", "state garbled"])
async def line(
    request: pytest.FixtureRequest,
    redis: Redis,
    redis_server: RedisServer,
    keys: Keys,
    catalog: Catalog,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Line:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("POLYCHROME_REDIS_PREFIX", keys.prefix)
    monkeypatch.setenv("POLYCHROME_BUCKET_URL", (tmp_path / "bucket").as_uri())
    monkeypatch.chdir(tmp_path)
    whole, broken = [await make_collection(catalog, database, name) for name in ("whole", "broken")]
    for collection in (whole, broken):
        await append(Log(redis, keys), collection, ["a", "b"])
    if request.param == "state lost":
        await redis.hdel(keys.state(broken.id), "head")
    else:
        await redis.hset(keys.state(broken.id), "m:0", "{")
    return Line(tmp_path / "backups", capsys, whole, broken)


async def test_what_cannot_be_read_is_named_and_the_rest_is_backed_up(line: Line) -> None:
    taken = await line.answer(1, "backup", "BACKUPS")
    assert (taken["collections"], list(taken["failed"])) == (1, [line.broken.id])
    assert taken["failed"][line.broken.id].startswith(f"{PATH}broken: ")
    [listed] = (await line.answer(0, "backup", "list", "BACKUPS"))["backups"]
    assert listed["failed"] == taken["failed"]
    said = f"not in the backup: {line.broken.id}: {PATH}broken: "
    assert said in (await line.run("backup", "BACKUPS")).out
    assert "lacks 1 that could not be read" in (await line.run("backup", "list", "BACKUPS")).out


async def test_a_restoration_says_what_the_backup_lacks(line: Line, catalog: Catalog, database: Database) -> None:
    taken = await line.answer(1, "backup", "BACKUPS")
    words = ["--backup", taken["backup"], "--collection", "broken", "--as", "again"]
    lacking = await line.run("restore", "BACKUPS", *words)
    assert lacking.code == 2
    assert f"no collection broken: {PATH}broken: " in lacking.err
    one = await line.answer(0, "restore", "BACKUPS", "--collection", "whole", "--as", "again")
    assert (list(one["ids"]), one["failed"]) == ([line.whole.id], {})
    await catalog.collections.delete(database, line.whole.name)
    restored = await line.answer(1, "restore", "BACKUPS")
    assert (list(restored["ids"]), restored["failed"]) == ([line.whole.id], taken["failed"])


async def test_what_is_asked_for_by_name_and_cannot_be_read_is_no_unknown_collection(line: Line) -> None:
    taken = await line.answer(1, "backup", "BACKUPS", "--collection", "broken", "--collection", "whole")
    assert list(taken["failed"]) == [line.broken.id]
    alone = await line.answer(0, "backup", "BACKUPS", "--collection", "whole")
    assert (alone["collections"], alone["failed"]) == (1, {})
