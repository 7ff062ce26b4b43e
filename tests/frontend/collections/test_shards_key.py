"""`polychrome:shards` in a collection's metadata."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.catalog import SHARDS_KEY, Rebuild
from shared.cluster.placement import Layout
from tests.frontend.server import COLLECTIONS, running


async def test_a_collection_gets_the_shards_that_its_metadata_asks_for() -> None:
    async with running(shards_default=2) as server:
        for metadata, shards in (({SHARDS_KEY: 5}, 5), ({"a": 1}, 2), (None, 2)):
            made = await server.client.post(
                COLLECTIONS, json={"name": f"col{shards}{metadata is None}", "metadata": metadata}
            )
            assert made.json()["metadata"] == metadata
            assert server.catalog.collections.rows[made.json()["id"]].shards == shards


@pytest.mark.parametrize("bad", [0, -1, 9, 2.0, 1.5, True, "3", [1], 10**30])
async def test_other_values_are_refused_and_nothing_is_created(bad: Any) -> None:
    async with running(shards_max=8) as server:
        for more in ({}, {"get_or_create": True}):
            answer = await server.client.post(COLLECTIONS, json={"name": "col", "metadata": {SHARDS_KEY: bad}, **more})
            assert 400 <= answer.status_code < 500
        assert not server.catalog.collections.rows


async def test_get_or_create_leaves_the_shards_as_they_are() -> None:
    async with running() as server:
        made = await server.client.post(COLLECTIONS, json={"name": "col", "metadata": {SHARDS_KEY: 2}})
        again = {"name": "col", "metadata": {SHARDS_KEY: 4}, "get_or_create": True}
        assert (await server.client.post(COLLECTIONS, json=again)).json() == made.json()
        assert server.catalog.collections.rows[made.json()["id"]].shards == 2


async def test_shards_cannot_be_taken_away() -> None:
    async with running() as server:
        made = (await server.client.post(COLLECTIONS, json={"name": "col", "metadata": {SHARDS_KEY: 3}})).json()
        path = f"{COLLECTIONS}/{made['id']}"
        refused = await server.client.put(path, json={"new_metadata": {SHARDS_KEY: 2}})
        assert refused.status_code == 400
        assert "cannot be lowered" in refused.json()["message"]
        for metadata in ({SHARDS_KEY: 3}, {"a": 1}, {SHARDS_KEY: 6}):
            assert (await server.client.put(path, json={"new_metadata": metadata})).status_code == 200
        row = server.catalog.collections.rows[made["id"]]
        server.catalog.collections.rows[row.id] = replace(row, rebuild=Rebuild(Layout(3, 6), 1, (None,) * 6, (0,) * 6))
        assert (await server.client.put(path, json={"new_metadata": {SHARDS_KEY: 5}})).status_code == 400


async def test_indexing_status_tells_how_far_a_rebuild_is() -> None:
    async with running() as server:
        made = (await server.client.post(COLLECTIONS, json={"name": "col"})).json()
        path = f"{COLLECTIONS}/{made['id']}/indexing_status"
        assert "rebuild" not in (await server.client.get(path)).json()
        await server.client.put(f"{COLLECTIONS}/{made['id']}", json={"new_metadata": {SHARDS_KEY: 4}})
        assert (await server.client.get(path)).json()["rebuild"] == {"shards": 1, "new_shards": 4, "built": 0}
        row = server.catalog.collections.rows[made["id"]]
        server.catalog.collections.rows[row.id] = replace(row, rebuild=Rebuild(Layout(1, 4), 1, (None,) * 4, (0,) * 4))
        assert (await server.client.get(path)).json()["rebuild"] == {"shards": 1, "new_shards": 4, "built": 1}
