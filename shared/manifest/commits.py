"""Numbers of commits, in Redis and in the bucket: what shows that Redis lost a commit, without a look at every shard.

Before a compactor creates a manifest it draws the next number from Redis and leaves it in the bucket as
`commits/<number, 20 digits>`. Every commit therefore follows its number in both places:

    the bucket's newest number is Redis's or less    every commit of Redis's past drew its number in it. At most the
                                                     commits under way are missing, whose operations the log still has
    the bucket's newest number is higher             Redis went back behind the drawing of a number: the commit, what
                                                     was trimmed after it and everything since may be missing

Only the newest number says anything; the older ones are deleted.
"""

from __future__ import annotations

import re
from typing import Final

from shared.objects.port import ObjectStore

PREFIX: Final = "commits/"
_KEY: Final = re.compile(r"commits/(\d{20})", re.ASCII)


class CommitNumbers:
    """The numbers in one bucket."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def leave(self, number: int) -> None:
        """Before the manifest is created. Again does no harm."""
        await self._objects.put(f"{PREFIX}{number:020d}", str(number).encode())

    async def newest(self) -> int:
        """0 when no compactor has ever left one."""
        return max(await self._numbers(), default=0)

    async def tidy(self) -> int:
        """Deletes all but the newest; returns how many."""
        numbers = sorted(await self._numbers())[:-1]
        await self._objects.delete([f"{PREFIX}{number:020d}" for number in numbers])
        return len(numbers)

    async def _numbers(self) -> list[int]:
        found = [_KEY.fullmatch(info.key) async for info in self._objects.list(PREFIX)]
        return [int(match[1]) for match in found if match]
