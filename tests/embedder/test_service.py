"""The process: announced while it serves, several callers at once, gone afterwards."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from embedder.config import EmbedderConfig
from embedder.service import Embedder, open_service
from embedder.weights import WIDTH
from frontend.embed.local import LocalEmbedder
from shared.catalog import Catalog
from shared.cluster.membership import Membership
from shared.errors import InvalidArgument
from shared.process.clock import SystemClock
from shared.process.config import ConfigError, read
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from shared.rpc.client import RpcClient
from shared.rpc.embed_messages import EMBED, EmbedRequest, EmbedResponse
from shared.vectors.arrays import Vectors
from tests.embedder.recorded import TEXTS, VECTORS, cosine_distances
from tests.redis_server import RedisServer

pytestmark = pytest.mark.usefixtures("needs_model")


def _environ(server: RedisServer, keys: Keys, **more: str) -> dict[str, str]:
    return {
        "REDIS_URL": server.url,
        "POLYCHROME_REDIS_PREFIX": keys.prefix,
        "POLYCHROME_BUCKET_URL": "memory://",
        "POLYCHROME_PROCESS_ID": "embedder-1",
        **more,
    }


@contextlib.asynccontextmanager
async def _served(server: RedisServer, keys: Keys) -> AsyncIterator[tuple[Embedder, Membership, RpcClient]]:
    client = RpcClient()
    async with open_redis(server.url) as redis:
        await Catalog(redis, keys).mark.open()
    async with open_redis(server.url) as redis, open_service(read(EmbedderConfig, _environ(server, keys))) as embedder:
        yield embedder, Membership(redis, keys, "embedder"), client
        await client.close()


async def _embed(client: RpcClient, address: str, texts: list[str]) -> Vectors:
    payload = msgspec.msgpack.encode(EmbedRequest(texts))
    answer = msgspec.msgpack.decode(await client.call(address, EMBED.name, payload, timeout_s=30), type=EmbedResponse)
    assert answer.dimension == WIDTH
    return np.frombuffer(answer.embeddings, "<f4").reshape(-1, WIDTH)


async def test_it_is_announced_and_answers_several_callers_at_once(valkey_server: RedisServer, keys: Keys) -> None:
    async with _served(valkey_server, keys) as (embedder, membership, client):
        (member,) = await membership.members()
        assert (member.id, member.address) == ("embedder-1", embedder.address)
        assert embedder.ready()
        answers = await asyncio.gather(*(_embed(client, member.address, TEXTS[n:] + TEXTS[:n]) for n in range(4)))
        for n, vectors in enumerate(answers):
            assert max(cosine_distances(np.roll(vectors, n, axis=0), VECTORS)) < 1e-5
        assert (await _embed(client, member.address, [])).shape == (0, WIDTH)
        with pytest.raises(InvalidArgument, match="EmbedRequest"):
            await client.call(member.address, EMBED.name, b"\xc1", timeout_s=5)
        await embedder.drain()
        assert not embedder.ready()
        assert await membership.members() == []


async def test_a_very_long_text_is_cut_before_it_is_looked_at(valkey_server: RedisServer, keys: Keys) -> None:
    async with _served(valkey_server, keys) as (embedder, _, client):
        beginning, whole = await _embed(client, embedder.address, ["word " * 6000, "word " * 1_000_000])
        assert np.array_equal(beginning, whole)


async def test_a_frontend_finds_it(valkey_server: RedisServer, keys: Keys) -> None:
    async with _served(valkey_server, keys) as (_, membership, client):
        local = LocalEmbedder(membership, client, SystemClock())
        vectors = await local.embed(TEXTS * 10)
        assert max(cosine_distances(vectors, np.tile(VECTORS, (10, 1)))) < 1e-5


def test_without_a_model_the_settings_are_refused(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"POLYCHROME_EMBEDDER_MODEL_DIR: there is no .*model\.safetensors"):
        read(EmbedderConfig, _environ(valkey_server, keys, POLYCHROME_EMBEDDER_MODEL_DIR=str(tmp_path)))
