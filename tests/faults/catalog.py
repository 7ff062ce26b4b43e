"""Clients that change the catalog while data is lost, and know what was acknowledged.

Every name has one client, and one change of it is under way at a time. A change that is not answered with success or a
definite refusal leaves its name in doubt: it may hold either of two states from then on, and nobody uses it again.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp
import httpx

from tests.cluster.harness import Cluster
from tests.cluster.waiting import wait_until
from tests.faults.kills import Killer
from tests.faults.ledger import Violation
from tests.faults.losses import Disturb, Losses

BASE: Final = "/api/v2/tenants/default_tenant/databases/default_database/collections"
CLIENTS: Final = 4
REQUEST_TIMEOUT_S: Final = 30.0
LISTING_S: Final = 30.0
"""Time within which the catalog answers again after the last loss, in seconds."""
PAUSE_AFTER_FAILURE_S: Final = 0.1
REFUSED: Final = "nothing was changed"
"""In the message of a 503 after which nothing has happened."""


class Unknown(Exception):
    """A change may or may not have been made."""


class Refused(Exception):
    """A change was not made."""


@dataclass(frozen=True)
class Held:
    """A collection under its name, as it was acknowledged."""

    id: str
    value: int


@dataclass
class CatalogLedger:
    """`states` are the possible states of each name: one, or two when it is in doubt. None is for no collection."""

    states: dict[str, tuple[Held | None, ...]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    acknowledged: int = 0

    def check(self, found: dict[str, Held]) -> None:
        """Raises Violation. `found` is everything that the database holds."""
        for name, states in self.states.items():
            seen = found.get(name)
            if seen not in states and not _in_doubt_anew(seen, states):
                raise Violation(f"{name} holds {seen}; acknowledged: {states}")
        if strangers := found.keys() - self.states.keys():
            raise Violation(f"names that nobody gave: {sorted(strangers)}")
        if back := self.deleted & {held.id for held in found.values()}:
            raise Violation(f"deleted collections came back: {sorted(back)}")


def _in_doubt_anew(seen: Held | None, states: tuple[Held | None, ...]) -> bool:
    """Whether the name is in doubt after a creation: the client does not know the id that it may have."""
    return len(states) > 1 and seen is not None and any(each is not None and not each.id for each in states)


class CatalogWorkload:
    """The clients. `urls` are the frontends; a seed is used once in a cluster."""

    def __init__(self, urls: list[str], seed: int) -> None:
        self.ledger = CatalogLedger()
        self._urls = urls
        self._chance = random.Random(seed)
        self._stop = asyncio.Event()
        self._values = 0
        self._prefix = f"s{seed}-"

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._session.close()

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Until `stop()`."""
        async with asyncio.TaskGroup() as group:
            for client in range(CLIENTS):
                group.create_task(self._work(client, random.Random(self._chance.random())))

    async def _work(self, client: int, chance: random.Random) -> None:
        url, mine = self._urls[client % len(self._urls)], dict[str, Held]()
        for number in range(1_000_000):
            if self._stop.is_set():
                return
            try:
                await self._change(url, f"{self._prefix}c{client}-{number}", mine, chance)
                self.ledger.acknowledged += 1
            except (Refused, Unknown):
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)

    async def _change(self, url: str, new_name: str, mine: dict[str, Held], chance: random.Random) -> None:
        action = chance.choice(("create", "create", "rename", "update", "delete")) if mine else "create"
        self._values += 1
        value = self._values
        if action == "create":
            body = {"name": new_name, "metadata": {"value": value}, "get_or_create": chance.random() < 0.3}
            made = await self._attempt({new_name: (None, Held("", value))}, "POST", url + BASE, body)
            mine[new_name] = Held(made["id"], value)
            self.ledger.states[new_name] = (mine[new_name],)
            return
        name = chance.choice(sorted(mine))
        held = mine.pop(name)
        if action == "delete":
            await self._attempt({name: (held, None)}, "DELETE", f"{url}{BASE}/{name}")
            self.ledger.states[name] = (None,)
            self.ledger.deleted.add(held.id)
            return
        to = new_name if action == "rename" else name
        after = Held(held.id, value)
        doubt: dict[str, tuple[Held | None, ...]] = {name: (held, None), to: (None, after)}
        if to == name:
            doubt = {name: (held, after)}
        body = {"new_name": to, "new_metadata": {"value": value}}
        try:
            await self._attempt(doubt, "PUT", f"{url}{BASE}/{held.id}", body)
        except Refused:
            mine[name] = held
            raise
        mine[to] = after
        self.ledger.states |= {name: (None,)} | {to: (after,)}

    async def _attempt(self, doubt: dict[str, tuple[Held | None, ...]], method: str, url: str, body: Any = None) -> Any:
        """The answer to a change; `doubt` are the states that names may have if its outcome stays unknown."""
        before = {name: self.ledger.states.get(name) for name in doubt}
        self.ledger.states |= doubt
        try:
            async with self._session.request(method, url, json=body) as response:
                if response.status == 200:
                    return await response.json()
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unknown from error
        if response.status < 500 and response.status != 404:
            raise Violation(f"{method} {url}: {response.status} {text}")
        if response.status == 404:
            raise Violation(f"{method} {url}: what was acknowledged is not there: {text}")
        if REFUSED in text:
            for name, states in before.items():
                if states is None:
                    del self.ledger.states[name]
                else:
                    self.ledger.states[name] = states
            raise Refused
        raise Unknown

    async def everything(self) -> dict[str, Held]:
        """All collections that clients of this seed have named, by name."""
        rows: list[dict[str, Any]] = []
        patient_until_s = asyncio.get_running_loop().time() + LISTING_S
        while True:
            async with self._session.get(f"{self._urls[0]}{BASE}?limit=500&offset={len(rows)}") as response:
                if response.status == 503 and asyncio.get_running_loop().time() < patient_until_s:
                    await asyncio.sleep(0.2)
                    continue
                response.raise_for_status()
                page = await response.json()
            if not page:
                mine = [row for row in rows if row["name"].startswith(self._prefix)]
                return {row["name"]: Held(row["id"], row["metadata"]["value"]) for row in mine}
            rows += page


async def run_catalog(cluster: Cluster, seed: int, disturb: Disturb) -> CatalogWorkload:
    """Changes the catalog while data is lost, and compares afterwards. Raises when a promise is broken."""
    chance = random.Random(seed)
    losses, killer = Losses(cluster, chance), Killer(cluster, chance)
    async with CatalogWorkload(cluster.urls, seed) as workload:
        losses.copy_redis()
        work = asyncio.create_task(workload.run())
        disturbing = asyncio.ensure_future(disturb(losses, killer))
        await asyncio.wait((work, disturbing), return_when=asyncio.FIRST_COMPLETED)
        workload.stop()
        await disturbing
        await work
        await asyncio.to_thread(cluster.wait_ready)
        await asyncio.to_thread(wait_until, lambda: _answers(cluster), "a listing", 60.0)
        workload.ledger.check(await workload.everything())
        return workload


def _answers(cluster: Cluster) -> bool:
    """Whether every frontend lists collections."""
    return all(httpx.get(f"{url}{BASE}?limit=1", timeout=5).status_code == 200 for url in cluster.urls)
