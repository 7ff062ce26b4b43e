"""From the environment to an answer: what the operator registered is what a collection's texts go through."""

import json
from typing import Any

import aiohttp
import pytest

from frontend.config import FrontendConfig
from frontend.service import build_embedders
from shared.errors import InvalidArgument
from shared.process.clock import SystemClock
from shared.process.config import read
from tests.frontend.embed.endpoint import running_endpoint, vector_of
from tests.frontend.fakes import new_collection

NOBODY: Any = None


async def test_an_endpoint_is_asked_under_its_name_with_its_key() -> None:
    async with running_endpoint() as endpoint, aiohttp.ClientSession() as http:
        environ = {
            "REDIS_URL": "redis://nowhere",
            "POLYCHROME_BUCKET_URL": "memory://",
            "POLYCHROME_FRONTEND_LOCAL_EMBEDDER_NAMES": "default",
            "POLYCHROME_FRONTEND_EMBEDDING_ENDPOINTS": json.dumps({"far": {"url": endpoint.url, "model": "small"}}),
            "POLYCHROME_FRONTEND_EMBEDDING_KEYS": '{"far": "sk-1"}',
            "POLYCHROME_FRONTEND_EMBEDDER_DEFAULT": "far",
        }
        embedders = build_embedders(read(FrontendConfig, environ), NOBODY, NOBODY, http, SystemClock())
        assert (await embedders.embed(new_collection(), ["abc"])).tolist() == [vector_of("abc")]
        assert endpoint.keys == ["Bearer sk-1"]
        assert embedders.chosen({"type": "known", "name": "default", "config": {}}) == "default"
        with pytest.raises(InvalidArgument, match="which has: default, far"):
            embedders.chosen({"type": "known", "name": "other", "config": {}})
