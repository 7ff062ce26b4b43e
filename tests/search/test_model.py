"""Random searches over random small collections, compared with the plain reference: with one shard and with three,
from the log alone, from segments alone and from both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.model import Op
from shared.redis.keys import Keys
from tests.model.strategies import SPACES
from tests.redis_server import RedisServer
from tests.search.collection import Searched, open_searched
from tests.search.generate import Generator
from tests.search.reference import Searcher

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
@pytest.mark.parametrize("seed", range(8))
async def test_searches_answer_as_the_reference_does(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, seed: int, shards: int
) -> None:
    generate = Generator(seed)
    space = SPACES[seed % len(SPACES)]
    async with open_searched(valkey_server.url, keys, tmp_path, shards=shards, space=space) as searched:
        await searched.write(Op.ADD, generate.rows(25))
        for _ in range(4):
            await assert_answers(searched, [generate.search() for _ in range(12)])
            if generate.random.random() < 0.6:
                await searched.world.compact()
                await searched.world.settled()
                await assert_answers(searched, [generate.search() for _ in range(12)])
            await disturb(searched, generate)
        await assert_answers(searched, [generate.search() for _ in range(12)])
