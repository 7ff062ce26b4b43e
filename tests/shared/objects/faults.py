"""An object store that refuses, waits or takes note when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

from shared.errors import Unavailable
from shared.objects.port import ObjectInfo, ObjectStore

Hook = Callable[[str], Awaitable[None]]
"""Called with the key of an object."""


async def _nothing(_key: str) -> None:
    pass


class FaultyStore:
    """`store`, with faults. While `read_only`, it takes no writes; while `away`, it answers nothing. `before` and
    `after` are called around every `create`; `calls` counts all calls by name.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.read_only = False
        self.away = False
        self.before: Hook = _nothing
        self.after: Hook = _nothing
        self.calls: dict[str, int] = {}

    def end_faults(self) -> None:
        """Ends all faults."""
        self.read_only = self.away = False
        self.before = self.after = _nothing

    def _check(self, call: str, *, writes: bool = False) -> None:
        self.calls[call] = self.calls.get(call, 0) + 1
        if self.away or (writes and self.read_only):
            raise Unavailable("object storage: a test has broken it")

    async def get(self, key: str) -> bytes:
        self._check("get")
        return await self.store.get(key)

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        self._check("get_range")
        return await self.store.get_range(key, start, end)

    async def download(self, key: str, path: Path) -> None:
        self._check("download")
        await self.store.download(key, path)

    async def put(self, key: str, data: bytes | Path) -> None:
        self._check("put", writes=True)
        await self.store.put(key, data)

    async def create(self, key: str, data: bytes) -> bool:
        await self.before(key)
        self._check("create", writes=True)
        created = await self.store.create(key, data)
        await self.after(key)
        return created

    async def delete(self, keys: Iterable[str]) -> None:
        self._check("delete", writes=True)
        await self.store.delete(keys)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        self._check("list")
        async for info in self.store.list(prefix):
            yield info


class Gate:
    """A place where work waits: `reached` is set when it has come there, and it goes on when `opened` is set."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, _key: str) -> None:
        self.reached.set()
        await self.opened.wait()
