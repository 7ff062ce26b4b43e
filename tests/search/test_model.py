"""Random searches over random small collections, compared with the plain reference: with one shard and with three,
from the log alone, from segments alone and from both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontend.read.workers import Begin
from shared.records.model import Op
from shared.redis.keys import Keys
from shared.rpc.method import RawMethod
from shared.rpc.query_worker_methods import ReadRequest
from tests.model.strategies import SPACES
from tests.queryworker.world import Worker
from tests.redis_server import RedisServer
from tests.search.collection import DirectWorkers, Searched, open_searched
from tests.search.generate import Generator
from tests.search.reference import Searcher
from tests.shared.memtable.model import Operation

EVERYTHING = ["#score", "#document", "#metadata", "#embedding"]


def shown(metadata: dict[str, Any]) -> dict[str, Any] | None:
    return {
        key: {**value, "tokens": None} if isinstance(value, dict) else value
        for key, value in metadata.items()
        if not key.startswith("chroma:")
    } or None


async def assert_answers(searched: Searched, payloads: list[dict[str, Any]]) -> None:
    records = searched.model.records
    searcher = Searcher(records, searched.model.space, bm25=frozenset({"bm"}))
    facets = {"keys": ["n", "tags", "any"], "limit": 3}
    asked = [{**payload, "select": {"keys": EVERYTHING}, "count": True, "facets": facets} for payload in payloads]
    answer = await searched.search(*asked)
    for number, payload in enumerate(payloads):
        expected = searcher.search(payload)
        assert answer["ids"][number] == expected["ids"]
        scores = [np.nan if score is None else score for score in answer["scores"][number]]
        finite = [score if np.isfinite(score) else np.nan for score in expected["scores"]]
        assert np.array_equal(np.array(scores, np.float32), np.array(finite, np.float32), equal_nan=True)
        found = [records[id_] for id_ in expected["ids"]]
        assert answer["documents"][number] == [record.document for record in found]
        assert answer["metadatas"][number] == [shown(record.metadata) for record in found]
        vectors = np.array([record.embedding for record in found], np.float32)
        assert np.array_equal(np.array(answer["embeddings"][number], np.float32).reshape(vectors.shape), vectors)
        assert answer["counts"][number] == expected["matching"]
        assert answer["facets"][number] == searcher.facets(payload.get("filter"), facets["keys"], 3)  # type: ignore[arg-type]


async def disturb(searched: Searched, generate: Generator) -> None:
    """One more write."""
    op = generate.random.choice(list(Op))
    if op is Op.DELETE:
        await searched.delete(generate.some_ids(generate.random.randint(1, 6)))
    else:
        rows = generate.rows(generate.random.randint(1, 12), patch=op is not Op.ADD, optional_vectors=op is Op.UPDATE)
        await searched.write(op, rows)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(("seed", "ids"), [*((seed, 30) for seed in range(6)), (6, 250)])
async def test_searches_answer_as_the_reference_does(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, seed: int, ids: int, shards: int
) -> None:
    generate = Generator(seed, ids)
    space = SPACES[seed % len(SPACES)]
    async with open_searched(valkey_server.url, keys, tmp_path, shards=shards, space=space) as searched:
        await searched.write(Op.ADD, generate.rows(ids))
        for _ in range(4):
            await assert_answers(searched, [generate.search() for _ in range(12)])
            if generate.random.random() < 0.6:
                await searched.world.compact()
                await searched.world.load_newest_manifests()
                await assert_answers(searched, [generate.search() for _ in range(12)])
            await disturb(searched, generate)
        await assert_answers(searched, [generate.search() for _ in range(12)])


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("seed", [7, 8])
async def test_searches_of_forks_answer_as_the_reference_does(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, seed: int, shards: int
) -> None:
    generate = Generator(seed, 30)
    async with open_searched(valkey_server.url, keys, tmp_path, shards=shards) as searched:
        await searched.write(Op.ADD, generate.rows(30))
        family = [searched]
        for _ in range(3):
            if generate.random.random() < 0.7:
                await generate.random.choice(family).world.compact()
            await disturb(family[-1], generate)
            family.append(await generate.random.choice(family).fork())
            for member in family:
                await disturb(member, generate)
                await assert_answers(member, [generate.search() for _ in range(6)])
        for member in family:
            await member.world.compact()
            await member.world.load_newest_manifests()
            await assert_answers(member, [generate.search() for _ in range(6)])


class WritingMeanwhile(DirectWorkers):
    """Somebody else writes after the first `quiet` calls of a search."""

    def __init__(self, worker: Worker, write: Callable[[], Coroutine[Any, Any, None]], quiet: int) -> None:
        super().__init__(worker)
        self._write = write
        self._quiet = quiet
        self._writing: asyncio.Future[None] | None = None

    async def _call(self, method: RawMethod[Any], request: ReadRequest, begin: Begin[Any]) -> Any:
        if self.calls >= self._quiet:
            self._writing = self._writing or asyncio.ensure_future(self._write())
            await self._writing
        return await super()._call(method, request, begin)


async def test_all_steps_of_a_search_over_several_shards_see_one_state(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    generate = Generator(1)
    async with open_searched(valkey_server.url, keys, tmp_path, shards=3) as searched:
        await searched.write(Op.ADD, generate.rows(25))
        ids = list(searched.model.records)

        async def remove_everything() -> None:
            await searched.world.write([Operation(Op.DELETE, id_) for id_ in ids])

        before = Searcher(dict(searched.model.records), "l2")
        searched.workers = WritingMeanwhile(searched.world.worker, remove_everything, quiet=3)
        search = {"rank": {"$knn": {"query": [0.0, 1.0, 3.0], "limit": 10}}, "order_by": [{"key": "n"}]}
        answer = await searched.search({**search, "count": True})
        expected = before.search(search)
        assert answer["ids"] == [expected["ids"]]
        assert answer["counts"] == [len(ids)]
        assert (await searched.search(search))["ids"] == [[]]


async def test_a_search_that_comes_too_late_for_its_state_begins_anew(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    generate = Generator(2)
    async with open_searched(valkey_server.url, keys, tmp_path, shards=3) as searched:
        await searched.write(Op.ADD, generate.rows(25))

        async def rewrite_and_compact() -> None:
            for worker_shard in list(searched.world.worker.shards._shards.values()):
                await worker_shard.close()
            searched.world.worker.shards._shards.clear()
            await searched.delete(list(searched.model.records)[:5])
            await searched.world.compact()

        searched.workers = WritingMeanwhile(searched.world.worker, rewrite_and_compact, quiet=3)
        search = {"rank": {"$knn": {"query": [0.0, 1.0, 3.0], "limit": 30}}}
        answer = await searched.search(search)
        assert answer["ids"] == [Searcher(searched.model.records, "l2").search(search)["ids"]]
        assert searched.workers.calls > 6


async def test_every_read_level_answers_and_the_default_sees_the_last_write(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    generate = Generator(3)
    async with open_searched(valkey_server.url, keys, tmp_path) as searched:
        for _ in range(3):
            await searched.write(Op.UPSERT, generate.rows(5))
            search = {"rank": {"$knn": {"query": [0.0, 1.0, 3.0], "limit": 30}}}
            expected = Searcher(searched.model.records, "l2").search(search)["ids"]
            for level in ("index_and_wal", "index_and_bounded_wal"):
                assert (await searched.search(search, read_level=level))["ids"] == [expected]
            assert set((await searched.search(search, read_level="index_only"))["ids"][0]) <= set(expected)
