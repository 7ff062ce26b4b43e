"""An object store that proves that it creates objects atomically before the first object is created in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from shared.objects.open import verify_conditional_create
from shared.objects.port import ObjectInfo, ObjectStore


class VerifiedStore:
    """`store`, for a process that has work to do, too, while the store takes no writes, and then cannot prove anything.
    `create` raises UnfitStore, as `verify` does, when the proof fails.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._verified = False
        self._verifying = asyncio.Lock()

    async def verify(self) -> None:
        """Proves it, once. Raises UnfitStore, and Unavailable while the store takes no writes."""
        async with self._verifying:
            if not self._verified:
                await verify_conditional_create(self._store)
                self._verified = True

    async def get(self, key: str) -> bytes:
        return await self._store.get(key)

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return await self._store.get_range(key, start, end)

    async def download(self, key: str, path: Path) -> None:
        await self._store.download(key, path)

    async def put(self, key: str, data: bytes | Path) -> None:
        await self._store.put(key, data)

    async def create(self, key: str, data: bytes) -> bool:
        if not self._verified:
            await self.verify()
        return await self._store.create(key, data)

    async def delete(self, keys: Iterable[str]) -> None:
        await self._store.delete(keys)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        async for info in self._store.list(prefix):
            yield info
