"""Numbers of commits, in Redis and in the bucket. They show whether Redis lost a commit, without a look at every shard.

Before a compactor creates a manifest it draws the next number from Redis and leaves it in the bucket as
`commits/<number, 20 digits>`. So every commit comes after its number in both places, and the bucket's newest number
says what a Redis that restarted may have lost:

```text
Redis's number or less    Redis has drawn every number that there is. At most commits that were under way are missing,
                          and the log still has their operations
a higher one              Redis went back to before it drew that number: the commit, what was trimmed after it and
                          everything since may be missing
```

Only the newest number matters; the older ones are deleted.
"""

from __future__ import annotations

from shared.objects.keys import COMMITS, commit_key, parse_commit_key
from shared.objects.port import ObjectStore


class CommitNumbers:
    """The numbers of commits in one bucket."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def leave(self, number: int) -> None:
        """Leaves a number that was drawn, before the manifest is created. May be repeated."""
        await self._objects.put(commit_key(number), str(number).encode())

    async def newest(self) -> int:
        """The highest number in the bucket, 0 when no compactor has ever left one."""
        return max(await self._numbers(), default=0)

    async def tidy(self) -> int:
        """Deletes all numbers but the newest; returns how many."""
        numbers = sorted(await self._numbers())[:-1]
        await self._objects.delete([commit_key(number) for number in numbers])
        return len(numbers)

    async def _numbers(self) -> list[int]:
        found = [parse_commit_key(info.key) async for info in self._objects.list(COMMITS)]
        return [number for number in found if number is not None]
