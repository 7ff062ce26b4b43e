"""Opens the object store that a URL names, and proves that it creates objects atomically."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from shared.objects.directory import open_directory
from shared.objects.keys import PROBES
from shared.objects.memory import MemoryStore
from shared.objects.port import ObjectStore, UnfitStore, check_key
from shared.objects.retrying import RetryingStore
from shared.process.clock import SystemClock
from shared.process.concurrency import together

PROBE_WRITERS: Final = 4


@contextlib.asynccontextmanager
async def open_store(url: str) -> AsyncIterator[ObjectStore]:
    """Opens `file:///directory`, `s3://bucket/prefix` or `memory://`, with retries. Raises ValueError for any other
    URL, Unavailable when a directory cannot be opened.
    """
    clock = SystemClock()
    parts = urlsplit(url)
    async with contextlib.AsyncExitStack() as stack:
        store: ObjectStore
        if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
            store = await stack.enter_async_context(open_directory(Path(unquote(parts.path))))
        elif parts.scheme == "s3" and parts.netloc:
            from shared.objects.s3 import open_s3  # its client takes 20 MiB

            prefix = parts.path.strip("/")
            store = await stack.enter_async_context(open_s3(parts.netloc, check_key(prefix) + "/" if prefix else ""))
        elif parts.scheme == "memory":
            store = MemoryStore(clock.now)
        else:
            raise ValueError(f"{url!r} is not file:///directory, s3://bucket/prefix or memory://")
        yield RetryingStore(store, clock)


async def verify_conditional_create(store: ObjectStore) -> None:
    """Races writers for one new object. Raises UnfitStore unless exactly one wins, and the object has its bytes and
    keeps them.
    """
    key = f"{PROBES}{uuid.uuid4().hex}"
    offers = [f"writer {number} of {key}".encode() for number in range(PROBE_WRITERS)]
    try:
        won = await together([store.create(key, offer) for offer in offers])
        if won.count(True) != 1:
            raise UnfitStore(
                f"object storage let {won.count(True)} of {PROBE_WRITERS} racing writers create one object"
            )
        if await store.create(key, b"a late writer"):
            raise UnfitStore("object storage let a writer create an object that exists")
        if await store.get(key) != offers[won.index(True)]:
            raise UnfitStore("object storage kept another object than the one whose writer it told so")
    finally:
        await store.delete([key])
