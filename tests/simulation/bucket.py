"""The model of the bucket: objects that outlive every process, and clients that reach it late, or not, or hear nothing.

A call is applied when it arrives, whatever has become of its caller by then. What the port forbids does not happen:
an object is whole or absent, and a `create` whose outcome is not known says so.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import Unavailable, UnknownOutcome
from shared.objects.memory import MemoryStore
from shared.objects.port import ObjectInfo
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import Network

T = TypeVar("T")


class Bucket:
    """The objects, and how the bucket behaves: until `down_until_s` it refuses everything; of the other calls it
    refuses some and loses the answers to some, with these chances.
    """

    def __init__(
        self, loop: SimulatedLoop, network: Network, now_s: Callable[[], float], trace: Callable[[str], None], seed: int
    ) -> None:
        self.loop = loop
        self.network = network
        self.store = MemoryStore(now_s)
        self.trace = trace
        self.process = loop.new_process("bucket")
        self.chance = random.Random(f"bucket {seed}")
        self.delay_s_max = 0.005
        self.down_until_s = 0.0
        self.read_only_until_s = 0.0
        self.refuse_chance = 0.0
        self.lose_chance = 0.0

    def objects(self) -> dict[str, bytes]:
        """All objects, for checks."""
        return {key: content for key, (content, _) in self.store._objects.items()}


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("a call of the memory store waits")


class BucketClient:
    """The bucket as one process reaches it: an object store as of `shared.objects.port`."""

    def __init__(self, bucket: Bucket, process: Process) -> None:
        self._bucket = bucket
        self._process = process

    async def get(self, key: str) -> bytes:
        return await self._call(f"get {key}", lambda: self._bucket.store.get(key))

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return await self._call(f"get {key}", lambda: self._bucket.store.get_range(key, start, end))

    async def download(self, key: str, path: Path) -> None:
        path.write_bytes(await self.get(key))  # noqa: ASYNC240 (on a file system in memory)

    async def put(self, key: str, data: bytes | Path) -> None:
        content = data.read_bytes() if isinstance(data, Path) else bytes(data)  # noqa: ASYNC240 (the same)
        await self._call(f"put {key}", lambda: self._bucket.store.put(key, content), writes=True)

    async def create(self, key: str, data: bytes) -> bool:
        return await self._call(
            f"create {key}", lambda: self._bucket.store.create(key, data), writes=True, lost=UnknownOutcome
        )

    async def delete(self, keys: Iterable[str]) -> None:
        doomed = list(keys)
        await self._call(f"delete {' '.join(doomed)}", lambda: self._bucket.store.delete(doomed), writes=True)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        async def listed() -> list[ObjectInfo]:
            return [info async for info in self._bucket.store.list(prefix)]

        for info in await self._call(f"list {prefix}", listed):
            yield info

    async def _call(
        self,
        what: str,
        work: Callable[[], Coroutine[Any, Any, T]],
        *,
        writes: bool = False,
        lost: type[Unavailable] = Unavailable,
    ) -> T:
        bucket, process = self._bucket, self._process
        if not process.alive:
            raise Unavailable("object storage: this process is dead")
        outcome = bucket.loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        def arrive() -> None:
            now_s, answer_s = bucket.loop.time(), bucket.chance.random() * bucket.delay_s_max
            down = now_s < (max(bucket.down_until_s, bucket.read_only_until_s) if writes else bucket.down_until_s)
            if down or bucket.chance.random() < bucket.refuse_chance:
                bucket.loop.call_later(answer_s, settle, None, Unavailable("object storage: refused"))
                return
            if writes:
                bucket.trace(f"{process} {what}")
            result, error = None, None
            try:
                result = finished(work())
            except Exception as found:
                error = found
            if bucket.chance.random() < bucket.lose_chance:
                bucket.loop.call_later(answer_s, settle, None, lost("object storage: the answer was lost"))
            else:
                bucket.loop.call_later(answer_s, settle, result, error)

        delay_s = bucket.chance.random() * bucket.delay_s_max
        bucket.loop.call_later(delay_s, arrive, context=bucket.process.context())
        bucket.network.note_io(process)
        result: T = await outcome
        return result
