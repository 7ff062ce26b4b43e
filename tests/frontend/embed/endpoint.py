"""A stand-in for an OpenAI-compatible embeddings endpoint: speaks the protocol, and fails when it is told to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Reply = Callable[[dict[str, Any]], web.Response]


def vector_of(text: str, width: int = 3) -> list[float]:
    return [float(len(text)), *[0.5] * (width - 1)]


def vectors(body: dict[str, Any]) -> web.Response:
    """A right answer, last text first: the index tells which is whose."""
    width = body.get("dimensions", 3)
    data = [
        {"object": "embedding", "index": index, "embedding": vector_of(text, width)}
        for index, text in reversed(list(enumerate(body["input"])))
    ]
    return web.json_response({"object": "list", "data": data, "model": body["model"], "usage": {"total_tokens": 1}})


def status(code: int, **headers: str) -> Reply:
    """An answer without vectors, whose text must reach nobody."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.json_response({"error": {"message": "secret reason"}}, status=code, headers=names)


def answer(data: Any) -> Reply:
    """Status 200 with this."""
    return lambda _: web.json_response(data)


def items(*embeddings: Any) -> Reply:
    return answer({"data": [{"index": index, "embedding": vector} for index, vector in enumerate(embeddings)]})


@dataclass
class Endpoint:
    """`replies` are given one each to the next requests, then right answers. With `stuck` it never answers."""

    url: str = ""
    replies: list[Reply] = field(default_factory=list)
    stuck: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("Authorization"))
        if self.stuck:
            await asyncio.Event().wait()
        return (self.replies.pop(0) if self.replies else vectors)(body)


@asynccontextmanager
async def running_endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.add_routes([web.post("/v1/embeddings", endpoint.handle)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/embeddings"
        yield endpoint
    finally:
        await runner.cleanup()
