"""A bank over several shards, run by conditional transactions while data under it is lost.

A transfer reads two accounts, takes from one and gives to the other, and counts its teller's transfers in a record of
its own: three records in one commit, on whatever shards they lie. So whatever is lost, at every moment

* the balances have the sum that they began with: a commit is there whole or not at all, and nothing comes back that
  others went on without;
* a teller has counted no fewer transfers than were acknowledged to it, unless the cluster says what it has lost.
"""

import asyncio
import random
from typing import Any, Final

import orjson

from shared.redis.client import command, open_redis
from shared.redis.keys import Keys
from tests.cluster.harness import Cluster
from tests.faults.ledger import Violation
from tests.faults.workload import DIMENSION, PAUSE_AFTER_FAILURE_S, Failed, Workload

ACCOUNTS: Final = [f"account {number}" for number in range(20)]
TELLERS: Final = 4
AUDITORS: Final = 2
BALANCE: Final = 100

REFUSED: Final = ("409", "412", "429")
"""Answers to a commit that say for certain that nothing was written."""


class Bank(Workload):
    """`run` until `stop`. A broken promise is a Violation."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        super().__init__(cluster.urls, seed)
        self._cluster = cluster
        self._acknowledged = dict.fromkeys(self.tellers(), 0)
        self.transfers = 0
        self.lost = 0
        """Transfers that were acknowledged and are gone, as the cluster said."""
        self.audits = 0

    @staticmethod
    def tellers() -> list[str]:
        return [f"teller {number}" for number in range(TELLERS)]

    async def found(self) -> None:
        """Opens all accounts, in one batch that outlives the loss of Redis."""
        metadatas = [{"balance": BALANCE} for _ in ACCOUNTS] + [{"transfers": 0} for _ in self.tellers()]
        await self._post(f"/{self._id}/add", _payload([*ACCOUNTS, *self.tellers()], metadatas))
        await self.wait_until_indexed()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for teller in self.tellers():
                group.create_task(self._serve(teller, random.Random(self._random.random())))
            for _ in range(AUDITORS):
                group.create_task(self._audit())

    async def _serve(self, teller: str, chance: random.Random) -> None:
        while not self._stop.is_set():
            try:
                await self._transfer(teller, chance)
            except Failed as failure:
                reason = str(failure)[:80]
                self.write_failures[reason] = self.write_failures.get(reason, 0) + 1
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)

    async def _transfer(self, teller: str, chance: random.Random) -> None:
        source, target = chance.sample(ACCOUNTS, 2)
        ids = [source, target, teller]
        read = await self._post(f"/{self._id}/conditional/get", {"ids": ids, "include": ["metadatas"]})
        found = dict(zip(read["ids"], read["metadatas"], strict=True))
        if found.keys() != set(ids):
            raise Violation(f"of {ids} there are {sorted(found)}")
        await self._notice_loss(teller, found[teller]["transfers"])
        amount, number = chance.randint(1, 30), found[teller]["transfers"] + 1
        changed = [
            {"balance": found[source]["balance"] - amount},
            {"balance": found[target]["balance"] + amount},
            {"transfers": number},
        ]
        operations = [{"operation": "upsert", "payload": _payload(ids, changed)}]
        body = {"read_token": read["read_token"], "read_ids": ids, "operations": operations}
        await self._post(f"/{self._id}/conditional/commit", body)
        self._acknowledged[teller] = number
        self.transfers += 1

    async def _audit(self) -> None:
        while not self._stop.is_set():
            try:
                await self.check_sum()
            except Failed:
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
            else:
                self.audits += 1

    async def check_sum(self) -> dict[str, int]:
        """The number of transfers of each teller. Raises Violation when money was made or lost."""
        body = {"include": ["metadatas"], "where": {"balance": {"$gte": -(2**40)}}}
        accounts = await self._post(f"/{self._id}/get", body)
        total = sum(metadata["balance"] for metadata in accounts["metadatas"])
        if len(accounts["ids"]) != len(ACCOUNTS) or total != BALANCE * len(ACCOUNTS):
            raise Violation(f"{len(accounts['ids'])} accounts hold {total}")
        tellers = await self._post(f"/{self._id}/get", {"include": ["metadatas"], "ids": self.tellers()})
        return {
            teller: metadata["transfers"] for teller, metadata in zip(tellers["ids"], tellers["metadatas"], strict=True)
        }

    async def check_transfers(self) -> None:
        """Once nobody writes any more: what is gone is named. Raises Violation."""
        for teller, count in (await self.check_sum()).items():
            await self._notice_loss(teller, count)

    async def _notice_loss(self, teller: str, count: int) -> None:
        """Raises Violation when the teller's records lack transfers and the cluster does not say that some are lost."""
        gone = self._acknowledged[teller] - count
        if gone <= 0:
            return
        if self._id not in await missing_collections(self._cluster):
            raise Violation(f"{gone} transfers of {teller} are gone and nothing says so")
        self._acknowledged[teller] = count
        self.lost += gone


async def missing_collections(cluster: Cluster) -> set[str]:
    """The collections of which the last comparison of Redis with the bucket says that something may be missing."""
    async with open_redis(cluster.redis.url) as redis:
        report = await command(redis, "GET", Keys().report)
    return set() if report is None else {lost["collection"] for lost in orjson.loads(report).get("missing", [])}


def _payload(ids: list[str], metadatas: list[dict[str, int]]) -> dict[str, Any]:
    return {"ids": ids, "embeddings": [[0.0] * DIMENSION] * len(ids), "metadatas": metadatas}
