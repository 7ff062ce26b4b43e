import uuid
from urllib.parse import urlsplit

import chromadb
import pytest
from chromadb.api import ClientAPI
from chromadb.api.async_api import AsyncClientAPI
from chromadb.config import Settings

from tests.outside.fixtures import server_client, server_url

__all__ = ["server_client", "server_url"]


def address(server_url: str) -> tuple[str, int]:
    parts = urlsplit(server_url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


@pytest.fixture
def client(server_url: str) -> ClientAPI:
    host, port = address(server_url)
    return chromadb.HttpClient(host=host, port=port, settings=Settings(anonymized_telemetry=False))


@pytest.fixture
async def async_client(server_url: str) -> AsyncClientAPI:
    host, port = address(server_url)
    return await chromadb.AsyncHttpClient(host=host, port=port, settings=Settings(anonymized_telemetry=False))


@pytest.fixture
def name() -> str:
    return f"clients-{uuid.uuid4().hex[:12]}"
