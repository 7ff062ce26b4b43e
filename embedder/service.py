"""An embedder process: opens Redis, the model with its threads, and a listener for frontends, and announces itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from embedder.api import Api
from embedder.batching import Batcher
from embedder.config import EmbedderConfig
from embedder.model import Model
from embedder.tokens import read_tokenizer
from embedder.weights import read_weights
from shared.cluster.membership import Membership
from shared.cluster.registration import Registration, advertised_address
from shared.process.cluster_secret import check_exposure, open_cluster_secret
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys
from shared.rpc.server import RpcServer


class Embedder:
    """The running process, as `shared.process.service` wants it."""

    def __init__(self, config: EmbedderConfig, registration: Registration) -> None:
        self._config = config
        self._registration = registration

    @property
    def address(self) -> str:
        return self._registration.address

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        return (self._registration.heartbeat,)

    def ready(self) -> bool:
        return not self._registration.draining

    async def drain(self) -> None:
        await self._registration.drain(self._config.drain_timeout_s)


@asynccontextmanager
async def open_service(config: EmbedderConfig) -> AsyncIterator[Embedder]:
    """Opens everything in order, and announces the embedder when all is there. Raises Unavailable while Redis is away,
    and Corrupt when the weights are not the model's.
    """
    check_exposure(config, config.host)
    secret = open_cluster_secret(config)
    async with AsyncExitStack() as stack:
        keys = Keys(config.redis_prefix)
        redis = await stack.enter_async_context(open_verified_redis(config.redis_url, keys))
        model, tokenizer = await asyncio.to_thread(_read, config.model_files)
        threads = stack.enter_context(ThreadPoolExecutor(config.threads, thread_name_prefix="embed"))
        batcher = Batcher(model.embed, threads, config.threads, config.waiting_tokens_max)
        stack.push_async_callback(batcher.close)
        server = RpcServer(Api(tokenizer, batcher).methods(), secret=secret)
        stack.push_async_callback(server.close)
        bound = await server.start(config.host, config.port)
        address = advertised_address(config.host, bound, config.advertise_host, config.redis_url)
        membership = Membership(redis, keys, "embedder")
        registration = Registration(config.process_id, address, membership, server, config.heartbeat_s)
        await registration.announce()
        yield Embedder(config, registration)


def _read(files: tuple[Path, Path]) -> tuple[Model, Tokenizer]:
    weights, tokenizer = files
    return Model(read_weights(weights)), read_tokenizer(tokenizer)
