"""A frontend's HTTP side on a free port, over the catalog in memory: no Redis, no workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx

from frontend.access.authenticator import Authenticator
from frontend.app import build_app
from frontend.collections.row_cache import RowCache
from frontend.context import Context
from frontend.embed.embedders import Embedders
from frontend.http.server import HttpServer, open_http_server
from shared.objects.memory import MemoryStore
from shared.process.clock import SystemClock
from tests.frontend.fakes import new_config, nothing_planned
from tests.frontend.memory_catalog import MemoryCatalog

DATABASES = "/api/v2/tenants/default_tenant/databases"
COLLECTIONS = f"{DATABASES}/default_database/collections"


@dataclass
class Running:
    server: HttpServer
    context: Context
    catalog: MemoryCatalog
    client: httpx.AsyncClient

    async def raw(self, text: bytes) -> bytes:
        """Sends bytes as they are and reads until the server closes the connection."""
        host, _, port = self.server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(text)
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


@asynccontextmanager
async def client_of(context: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server over `tests.frontend.fakes.new_context`."""
    async with (
        open_http_server(build_app(context), context.config.listener) as server,
        httpx.AsyncClient(base_url=f"http://{server.address}", timeout=30) as client,
    ):
        yield client


@asynccontextmanager
async def running(authenticator: Authenticator | None = None, **settings: Any) -> AsyncIterator[Running]:
    config = new_config(**settings)
    catalog, clock = MemoryCatalog(), SystemClock()
    context: Any = Context(
        config=config,
        clock=clock,
        objects=MemoryStore(clock.now),
        catalog=catalog,  # type: ignore[arg-type]  # the same interface over dictionaries
        log=None,  # type: ignore[arg-type]
        dirty=SimpleNamespace(add=lambda *_: None),  # type: ignore[arg-type]
        durable=None,  # type: ignore[arg-type]
        groups=None,  # type: ignore[arg-type]
        workers=SimpleNamespace(ready=True),  # type: ignore[arg-type]
        past=None,  # type: ignore[arg-type]
        rows=RowCache(catalog.databases, catalog.collections, clock),  # type: ignore[arg-type]
        embedders=Embedders({}, None, timeout_s=10),
        forker=None,  # type: ignore[arg-type]
        functions=None,  # type: ignore[arg-type]
        key_store=None,  # type: ignore[arg-type]
        plan_store=None,  # type: ignore[arg-type]
        usage_reader=None,  # type: ignore[arg-type]
        erasures=None,  # type: ignore[arg-type]
        admission=nothing_planned(),
        stored=None,  # type: ignore[arg-type]
        authenticator=authenticator,
    )
    async with (
        open_http_server(build_app(context), config.listener) as server,
        httpx.AsyncClient(base_url=f"http://{server.address}", timeout=10) as client,
    ):
        yield Running(server, context, catalog, client)
