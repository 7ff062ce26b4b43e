"""The object store as a dict: for tests and for `--in-memory`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from shared.objects.port import ObjectInfo, ObjectNotFound, VolumeFull, check_key, check_range, noticing_full_volume


class MemoryStore:
    """The objects of one process: they are gone when it ends. `now` gives the time that a listing shows, in seconds
    since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._objects: dict[str, tuple[bytes, float]] = {}

    async def get(self, key: str) -> bytes:
        try:
            return self._objects[check_key(key)][0]
        except KeyError:
            raise ObjectNotFound(key) from None

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        check_range(start, end)
        return (await self.get(key))[start:end]

    async def download(self, key: str, path: Path) -> None:
        content = await self.get(key)
        try:
            with noticing_full_volume(path):
                path.write_bytes(content)  # noqa: ASYNC240 (a fake: nothing else waits)
        except VolumeFull:
            path.unlink(missing_ok=True)  # noqa: ASYNC240 (as above)
            raise

    async def put(self, key: str, data: bytes | Path) -> None:
        content = data.read_bytes() if isinstance(data, Path) else bytes(data)  # noqa: ASYNC240 (small files, in tests)
        self._objects[check_key(key)] = (content, self._now())

    async def create(self, key: str, data: bytes) -> bool:
        if check_key(key) in self._objects:
            return False
        self._objects[key] = (bytes(data), self._now())
        return True

    async def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._objects.pop(check_key(key), None)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        for key in sorted(key for key in self._objects if key.startswith(prefix)):
            found = self._objects.get(key)
            if found is not None:
                yield ObjectInfo(key, len(found[0]), found[1])
