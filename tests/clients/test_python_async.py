"""The official Python client, asynchronous: the same server, many requests under way at once."""

import asyncio

import numpy as np
import pytest
from chromadb.api.async_api import AsyncClientAPI
from chromadb.errors import InvalidArgumentError, NotFoundError


async def test_concurrent_writes_are_all_there_and_found(async_client: AsyncClientAPI, name: str) -> None:
    collection = await async_client.create_collection(name, embedding_function=None)
    vectors = np.random.default_rng(11).random((200, 4), dtype=np.float32)

    async def write(batch: int) -> None:
        rows = range(batch * 20, batch * 20 + 20)
        await collection.add(
            ids=[f"row-{row}" for row in rows],
            embeddings=[vectors[row] for row in rows],
            metadatas=[{"row": row, "batch": batch} for row in rows],
        )

    await asyncio.gather(*(write(batch) for batch in range(10)))
    assert await collection.count() == 200
    found = await asyncio.gather(
        *(collection.query(query_embeddings=[vectors[row]], n_results=1) for row in range(0, 200, 10))
    )
    assert [answer["ids"][0][0] for answer in found] == [f"row-{row}" for row in range(0, 200, 10)]
    got = await collection.get(where={"batch": 3}, include=["embeddings", "metadatas"])
    np.testing.assert_array_equal(np.asarray(got["embeddings"], dtype=np.float32), vectors[60:80])


async def test_each_writer_reads_its_own_write(async_client: AsyncClientAPI, name: str) -> None:
    collection = await async_client.create_collection(name, embedding_function=None)

    async def write_and_read(writer: int) -> None:
        for version in range(10):
            await collection.upsert(
                ids=[f"w{writer}"], embeddings=[[float(writer), float(version)]], metadatas=[{"version": version}]
            )
            got = await collection.get(ids=[f"w{writer}"])
            assert got["metadatas"] == [{"version": version}]

    await asyncio.gather(*(write_and_read(writer) for writer in range(5)))
    assert await collection.count() == 5


async def test_update_delete_and_modify(async_client: AsyncClientAPI, name: str) -> None:
    collection = await async_client.create_collection(name, embedding_function=None)
    await collection.add(ids=["a", "b"], embeddings=[[0.0, 1.0], [1.0, 0.0]], documents=["A", "B"])
    await collection.update(ids=["a"], embeddings=[[0.0, 2.0]], documents=["AA"])
    assert (await collection.get(ids=["a"]))["documents"] == ["AA"]
    await collection.delete(ids=["a"])
    assert await collection.count() == 1
    await collection.modify(name=f"{name}-new")
    assert (await async_client.get_collection(f"{name}-new")).id == collection.id
    await async_client.delete_collection(f"{name}-new")
    with pytest.raises(NotFoundError):
        await collection.count()


async def test_errors_reach_the_caller(async_client: AsyncClientAPI, name: str) -> None:
    collection = await async_client.create_collection(name, embedding_function=None)
    await collection.add(ids=["a"], embeddings=[[0.0, 1.0]])
    with pytest.raises(InvalidArgumentError, match="dimension of 2, got 3"):
        await collection.query(query_embeddings=[[1.0, 2.0, 3.0]])
