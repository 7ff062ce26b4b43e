"""The fields of a function in the states of its output and of its inputs (docs/design/2026-11-21-functions.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from shared.errors import PolychromeError
from shared.redis.client import command, persist
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

FUNCTION: Final = Script("shared.log", "function")


class Remade(PolychromeError):
    """The output is made of something else by now: compute it again."""

    code = "remade"


@dataclass(frozen=True, slots=True)
class Made:
    """The origin of an output before and after an append; empty: it is made of nothing yet."""

    before: bytes
    now: bytes


class Outputs:
    """Everything may be repeated after a lost answer. Raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def made(self, output: str) -> bytes:
        """The origin of the output's last content; empty: it was made of nothing yet."""
        return await self._field(output, "made") or b""

    async def set_made(self, output: str, made: Made) -> bool:
        """With nothing to append. False: it is made of something else, or gone."""
        return await self._run(output, "made", made.before, made.now)

    async def of(self, given: str) -> str | None:
        """The output of an input, as far as its state knows."""
        found = await self._field(given, "feeds")
        return None if found is None else found.decode()

    async def feed(self, given: str, output: str, versions: int) -> None:
        """Says that the collection is an input now. `versions` of its manifests were not seen by the function."""
        await self._run(given, "feed", output, versions)

    async def ran(self, given: str, output: str, run: str, versions: int) -> None:
        """Says that the function has seen manifests of so many versions. `run` is another one each time."""
        await self._run(given, "ran", output, run, versions)

    async def unfeed(self, given: str, output: str) -> None:
        await self._run(given, "unfeed", output)

    async def _field(self, collection_id: str, name: str) -> bytes | None:
        key = self._keys.state(collection_id)
        found: bytes | None = await persist(lambda: command(self._redis, "HGET", key, name), writes=False)
        return found

    async def _run(self, collection_id: str, *args: Argument) -> bool:
        return bool(await FUNCTION.run(self._redis, [self._keys.state(collection_id)], args))
