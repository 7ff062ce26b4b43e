"""What clients do in a run, and what they check of every answer.

Groups: batches that write the same version to several ids of several shards. Banks: transactions that move money
between accounts; each account lists the transfers that it was part of, so half a transaction shows for ever.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import orjson

from frontend.collections.current_row import with_current_row
from frontend.read.gets import Get, Page
from frontend.write.operations import Operations
from shared.catalog import Collection, NewCollection
from shared.errors import (
    Backoff,
    ConditionalWriteConflict,
    DeadlineExceeded,
    NotRepeated,
    StaleGeneration,
    StaleRead,
    Unavailable,
    WrongWorker,
)
from shared.records.include import Wanted
from shared.records.model import Include, Op
from shared.records.selection import Selection
from tests.simulation.history import History, Violation
from tests.simulation.members import Frontend, Member

T = TypeVar("T")

CALL_S: Final = 30.0
OPENING_BALANCE: Final = 100
REFUSED: Final = (Unavailable, Backoff, DeadlineExceeded, WrongWorker, StaleRead, StaleGeneration, NotRepeated)
"""Errors after which a client tries again later. UnknownOutcome is an Unavailable."""

Documents = dict[str, str]
"""Id -> document of the records that a read found."""

Known = dict[str, list[int]]
"""Id -> positions of the writes that had been acknowledged when a read began."""


@dataclass(frozen=True)
class Access:
    """The clients' way into the cluster."""

    frontends: Sequence[Member]
    history: History
    chance: random.Random
    trace: Callable[[str], None]

    async def call(self, work: Callable[[Frontend], Awaitable[T]]) -> T:
        """The result of `work`, done by some frontend."""
        return await self.chance.choice(self.frontends).call(work, timeout_s=CALL_S)

    async def create(self, name: str, shards: int) -> Collection:
        """A new collection; tried until it is there."""
        fixed = {"space": "l2", "shards": shards, "ef_construction": 100, "max_neighbors": 16}

        async def create(frontend: Frontend) -> Collection:
            catalog = frontend.context.catalog
            database = await catalog.databases.get("default_tenant", "default_database")
            if database is None:
                raise Unavailable("no database yet")
            found, _ = await catalog.collections.create(
                database, NewCollection(name, None, {}, {}, fixed, dimension=2), True
            )
            return found

        while True:
            try:
                return await self.call(create)
            except REFUSED:
                await asyncio.sleep(0.2)

    async def head(self, collection: Collection) -> int:
        """The collection's head."""
        return (await self.call(lambda frontend: frontend.context.log.readable(collection.id)))[-1]

    async def write(self, collection: Collection, documents: Mapping[str, str | None]) -> None:
        """One batch, acknowledged on return. Documents of None delete."""
        operations = operations_of(documents)
        request_id = uuid.uuid4().hex

        async def write(frontend: Frontend) -> None:
            await with_current_row(
                frontend.context.rows,
                collection,
                lambda current: frontend.context.groups.append(current, operations, request_id),
            )

        await self.call(write)
        self.history.acknowledge(collection.id, documents.items())

    async def read(self, collection: Collection, ids: Sequence[str]) -> Documents:
        """A plain get, checked: it sees what was acknowledged before it began."""
        known = self.known(collection, ids)
        body = await self.call(lambda frontend: frontend.reader.get(collection, get_of(ids)))
        found = documents_of(bytes(body))
        self.check(collection, found, known, "get")
        return found

    async def read_as_of(
        self, collection: Collection, ids: Sequence[str], token: int | None
    ) -> tuple[Documents, int, Known]:
        """A get of a transaction: what it found, its token, and what was acknowledged before it."""
        known = self.known(collection, ids)
        body, at = await self.call(lambda frontend: frontend.point_in_time.get(collection, get_of(ids), token))
        return documents_of(bytes(body)), at, known

    async def commit(
        self, collection: Collection, documents: Mapping[str, str | None], token: int, ids: Sequence[str]
    ) -> None:
        """Commits a transaction; acknowledged on return."""
        operations, request_id = [operations_of(documents)], uuid.uuid4().hex

        async def commit(frontend: Frontend) -> None:
            await with_current_row(
                frontend.context.rows,
                collection,
                lambda current: frontend.committer.commit(current, operations, token, ids, request_id),
            )

        await self.call(commit)
        self.history.acknowledge(collection.id, documents.items())

    def known(self, collection: Collection, ids: Sequence[str]) -> Known:
        """What was acknowledged of these ids until now."""
        return {id_: self.history.acknowledged_positions(collection.id, id_) for id_ in ids}

    def check(self, collection: Collection, found: Documents, known: Known, where: str) -> None:
        """Raises Violation unless a read of these ids saw what was known before it. What a report that came meanwhile
        names as missing need not be there.
        """
        for id_, positions in known.items():
            least = self.history.least_position(collection.id, positions)
            self.history.check_value(collection.id, id_, found.get(id_), least, where)


def operations_of(documents: Mapping[str, str | None]) -> Operations:
    ids = list(documents)
    texts = [text for text in documents.values() if text is not None]
    if not texts:
        return Operations(Op.DELETE, ids, size=10)
    vectors = np.array([[len(text), 1.0] for text in texts], np.float32)
    return Operations(Op.UPSERT, ids, vectors, documents=texts, size=100)


def get_of(ids: Sequence[str] | None, *, embeddings: bool = False) -> Get:
    """A get of these records (None: of all)."""
    wanted = Wanted([Include.DOCUMENTS, *([Include.EMBEDDINGS] if embeddings else [])])
    return Get(Selection(None if ids is None else list(ids)), Page(0, None), wanted)


def documents_of(body: bytes) -> Documents:
    answer = orjson.loads(body)
    return dict(zip(answer["ids"], answer["documents"], strict=True))


def label(collection: Collection) -> str:
    return f"{collection.id} of {collection.layout.count} shards"


@dataclass
class Group:
    """Ids that are always written together."""

    access: Access
    collection: Collection
    name: str
    size: int
    versions: itertools.count[int]

    @property
    def ids(self) -> list[str]:
        return [f"{self.name}{number}" for number in range(self.size)]

    async def run(self) -> None:
        """Writes and reads, for ever."""
        chance = self.access.chance
        while True:
            await asyncio.sleep(chance.expovariate(1.5))
            try:
                await (self._write() if chance.random() < 0.6 else self._read())
            except REFUSED:
                await asyncio.sleep(0.3)

    async def _write(self) -> None:
        version = f"{self.name} v{next(self.versions)}"
        await self.access.write(self.collection, dict.fromkeys(self.ids, version))

    async def _read(self) -> None:
        if self.access.chance.random() < 0.5:
            await self.access.read(self.collection, self.ids)
            return
        found, token, known = await self.access.read_as_of(self.collection, self.ids, None)
        self.access.check(self.collection, found, known, f"get as of {token}")
        self.check_whole(found, f"get as of {token}")

    def check_whole(self, found: Documents, where: str) -> None:
        """Raises Violation when a batch is there by half."""
        if len({found.get(id_) for id_ in self.ids}) > 1:
            raise Violation("half a batch", f"{where}: {label(self.collection)} {found}")


@dataclass(frozen=True)
class Account:
    """A record of a bank."""

    balance: int
    transfers: tuple[str, ...]

    def text(self) -> str:
        return orjson.dumps([self.balance, self.transfers]).decode()

    @staticmethod
    def of(text: str | None) -> Account:
        if text is None:
            return Account(OPENING_BALANCE, ())
        balance, transfers = orjson.loads(text)
        return Account(balance, tuple(transfers))

    def after(self, name: str, amount: int) -> Account:
        return Account(self.balance + amount, (*self.transfers, f"{name} {amount:+d}"))


class Bank:
    """Accounts, and clients that move money between them. A transfer's name says between which."""

    def __init__(self, access: Access, collection: Collection, accounts: int) -> None:
        self.access = access
        self.collection = collection
        self.ids = [f"account{number}" for number in range(accounts)]
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        """Moves money and looks, for ever."""
        chance = self.access.chance
        while True:
            await asyncio.sleep(chance.expovariate(2.0))
            try:
                await (self._transfer() if chance.random() < 0.7 else self.look())
            except REFUSED:
                await asyncio.sleep(0.3)
            except ConditionalWriteConflict:
                continue

    async def look(self) -> None:
        found, token, known = await self.access.read_as_of(self.collection, self.ids, None)
        self.access.check(self.collection, found, known, f"bank as of {token}")
        self.check_whole(found, f"bank as of {token}")

    async def _transfer(self) -> None:
        chance = self.access.chance
        source, target = chance.sample(self.ids, 2)
        found, token, known = await self.access.read_as_of(self.collection, [source, target], None)
        self.access.check(self.collection, found, known, f"transfer as of {token}")
        await asyncio.sleep(chance.random() * 0.2)
        name, amount = f"{source}>{target}#{next(self._numbers)}", chance.randint(1, 20)
        after = {
            source: Account.of(found.get(source)).after(name, -amount).text(),
            target: Account.of(found.get(target)).after(name, amount).text(),
        }
        await self.access.commit(self.collection, after, token, [source, target])

    def check_whole(self, found: Documents, where: str) -> None:
        """Raises Violation when money came or went, or a transfer is in one of its accounts alone."""
        accounts = {id_: Account.of(found.get(id_)) for id_ in self.ids}
        total = sum(account.balance for account in accounts.values())
        if total != OPENING_BALANCE * len(accounts):
            raise Violation("money", f"{where}: {label(self.collection)} holds {total}: {found}")
        for id_, account in accounts.items():
            names = {transfer.split(" ")[0] for transfer in account.transfers}
            for other_id, other in accounts.items():
                others = {transfer.split(" ")[0] for transfer in other.transfers}
                halves = [name for name in names - others if other_id in name.split("#")[0].split(">")]
                if halves:
                    message = f"{where}: {label(self.collection)}: {halves} in {id_}, not in {other_id}"
                    raise Violation("half a transaction", message)
