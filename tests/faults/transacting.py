"""Clients that run conditional transactions on a few ids of one collection, whatever dies meanwhile."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, Final

from tests.faults.workload import DIMENSION, PAUSE_AFTER_FAILURE_S, Failed, Workload
from tests.transactions.histories import Done, check_serialisable, settled

IDS: Final = ["1", "2", "3", "an id", "another id", "yet another"]
CLIENTS: Final = 6

BEGIN_ANEW: Final = ("409", "412", "429")
"""Answers to a commit that say for certain that nothing was written."""


class Transactions(Workload):
    """A transaction overwrites only what it has read, and its document is its name: so a history says whose versions
    followed whose.
    """

    def __init__(self, urls: Sequence[str], seed: int) -> None:
        super().__init__(urls, seed)
        self.certain: list[Done] = []
        self.unknown: list[Done] = []
        self.conflicts = 0
        self.stale = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._transact(number, random.Random(self._random.random())))

    async def check(self) -> list[str]:
        """Once nobody writes any more. Raises Anomaly."""
        last = await self._versions(IDS, None)
        return check_serialisable(settled(self.certain, self.unknown, last[0]), last[0])

    async def _transact(self, client: int, chance: random.Random) -> None:
        for number in range(1_000_000):
            if self._stop.is_set():
                return
            try:
                await self._one(f"{client}.{number}", chance)
            except Failed as failure:
                self.stale += str(failure).startswith("412")
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)

    async def _one(self, name: str, chance: random.Random) -> None:
        began, token = time.monotonic(), None
        reads: dict[str, str | None] = {}
        for _ in range(chance.randint(1, 2)):
            seen, token = await self._versions(chance.sample(IDS, chance.randint(1, 2)), token)
            reads |= seen
        writes = frozenset(chance.sample(list(reads), chance.randint(0, len(reads))))
        if not writes:
            self.certain.append(Done(name, reads, writes, began, time.monotonic()))
            return
        payload = {
            "ids": sorted(writes),
            "documents": [name] * len(writes),
            "embeddings": [[0.0] * DIMENSION] * len(writes),
        }
        operations = [{"operation": "upsert", "payload": payload}]
        try:
            await self._conditional("commit", {"read_token": token, "read_ids": list(reads), "operations": operations})
        except Failed as failure:
            if str(failure).startswith(BEGIN_ANEW):
                self.conflicts += str(failure).startswith("409")
            elif failure.applied is None:
                self.unknown.append(Done(name, reads, writes, began, None))
            raise
        self.certain.append(Done(name, reads, writes, began, time.monotonic()))

    async def _versions(self, ids: Sequence[str], token: int | None) -> tuple[dict[str, str | None], int]:
        body = {"ids": list(ids), "include": ["documents"], "read_token": token}
        answer = await self._conditional("get", body)
        assert token in (None, answer["read_token"])
        found = dict(zip(answer["ids"], answer["documents"], strict=True))
        return {id_: found.get(id_) for id_ in ids}, answer["read_token"]

    async def _conditional(self, what: str, body: dict[str, Any]) -> Any:
        return await self._post(f"/{self._id}/conditional/{what}", body)
