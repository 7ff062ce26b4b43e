"""Proving the streams of a log: that every entry is whole, follows the one before it and decodes, and that none is
missing.

A read of the log ends at the first damaged entry. Here it goes on behind it, so that all of them are found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis

from polychrome.verify.model import Finding
from shared.catalog.damage import DamageKind
from shared.errors import Corrupt, Gone
from shared.log.decoding import decode_entries
from shared.log.linking import link
from shared.log.log import Log
from shared.log.naming import stream_name
from shared.log.state import FIRST_ID, ShardState, position_of
from shared.log.substitutes import Substitutes
from shared.log.verification import DamagedEntry, RawEntry
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys

PAGE: Final = 64
"""Entries of a stream that are read at a time."""
TRIES: Final = 3
"""Times that a stream is read which does not fit its state: it was trimmed or written meanwhile."""


@dataclass(slots=True)
class StreamProof:
    """The result for a stream: its entries, and what is wrong with some of them."""

    entries: int = 0
    findings: list[Finding] = field(default_factory=list)


class StreamProver:
    """Proves the streams of one cluster. `read` is told the bytes that were read."""

    def __init__(self, redis: Redis, keys: Keys, read: Callable[[int], None]) -> None:
        self._redis = redis
        self._keys = keys
        self._log = Log(redis, keys)
        self._substitutes = Substitutes(redis, keys)
        self._read = read

    async def prove(self, collection: str, shard: int) -> StreamProof:
        """Proves a shard's stream, as far as its newest entry of the beginning. Raises Gone, Unavailable."""
        proof = StreamProof()
        for _ in range(TRIES):
            proof = await self._look(collection, shard)
            if not proof.findings:
                break
        return proof

    async def _look(self, collection: str, shard: int) -> StreamProof:
        [state] = await self._log.states([(collection, shard)])
        if state is None or state.deleted:
            raise Gone(f"collection {collection} was deleted")
        proof = StreamProof()
        try:
            substitutes = await self._substitutes.of_shard(collection, shard)
        except Corrupt as error:
            proof.findings.append(Finding.of(error.name, error.message, collection=collection, shard=shard))
            substitutes = {}
        after, after_chain = FIRST_ID, ""
        async for page, complete in self._pages(collection, shard, state):
            proof.entries += len(page)
            rest = page
            while rest or complete:
                linked = link(
                    collection, state, after, rest, complete=complete, after_chain=after_chain, substitutes=substitutes
                )
                damage = decode_entries(collection, shard, linked.entries).damage or linked.damage
                if damage is None:
                    if linked.entries:
                        after, after_chain = linked.entries[-1].id, linked.entries[-1].chain
                    break
                proof.findings.append(_finding(damage, state))
                after, after_chain = damage.entry_id, ""
                rest = [raw for raw in rest if position_of(raw[0].decode()) > position_of(after)]
                if not rest and position_of(after) >= position_of(state.tail):
                    break
        return proof

    async def _pages(
        self, collection: str, shard: int, state: ShardState
    ) -> AsyncIterator[tuple[Sequence[RawEntry], bool]]:
        """The entries up to the newest that the state names, as they are stored, and whether a page is the last."""
        start = "-"
        while True:
            call = ("XRANGE", self._keys.log(collection, shard), start, state.tail, "COUNT", PAGE)
            answer: Sequence[Any] = await retry_idempotent(lambda call=call: command(self._redis, *call), writes=False)  # type: ignore[misc]  # no type for a lambda with a default
            page = [(id_, [part for pair in fields.items() for part in pair]) for id_, fields in answer]
            self._read(sum(len(part) for _, parts in page for part in parts))
            complete = len(page) < PAGE
            yield page, complete
            if complete:
                return
            start = f"({page[-1][0].decode()}"


def _finding(damage: DamagedEntry, state: ShardState) -> Finding:
    """The finding for a damaged entry. One that a manifest covers is needed no more."""
    covered = state.pointer.covers if state.pointer else 1
    return Finding(
        damage.name or stream_name(damage.collection_id, damage.shard),
        DamageKind.ENTRY,
        damage.reason,
        damage.end is None or damage.end > covered,
        damage.collection_id,
        damage.shard,
        positions=(damage.first, damage.end),
    )
