"""Substitutes for entries that are damaged or missing: a good copy that was found elsewhere, or nothing, where there is
none and an operator has decided to go on without.

Nothing can be put into the middle of a stream. So substitutes lie in a hash beside it, which readers consult when they
meet damage, and only then. A *copy* must be what was written: it proves itself, and the chain of a neighbour, or of the
state, says so too. A *skip* has no operations, and the state keeps what it leaves out (`skipped:<shard>`) after the
entry is trimmed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis

from shared.errors import Corrupt, Gone
from shared.log.batch import EMPTY_PAYLOAD, payload_checksum
from shared.log.naming import entry_name, state_name
from shared.log.state import FIRST_ID, Entry, ShardState, parse_state, position_of, state_fields
from shared.log.verification import DamagedEntry, RawEntry, chain_of_entry, check_follows, raw_texts, verified_entry
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

SUBSTITUTE: Final = Script("shared.log", "substitute")
SKIPPED: Final = Script("shared.log", "skipped")
SCAN_COUNT: Final = 1000


class Skipped(msgspec.Struct, frozen=True):
    """An entry that an operator had skipped, and the positions [first, end) among which the lost operations are;
    `at_s` is when, in seconds since the epoch.
    """

    entry: str
    first: int
    end: int
    at_s: float


_SKIPPED_ENTRIES: Final = msgspec.json.Decoder(list[Skipped])
_TEXTS: Final = msgspec.json.Decoder(list[str])


class _Around(NamedTuple):
    """A shard's state, the operations and payload bytes ever added to its stream, and what the stream has around an
    entry: None where there is nothing, or it is damaged and has no substitute. `before_id` is the id of what is before
    it, whatever that is; `fields` the entry itself when its fields are believed, whatever its payload, and `whole` says
    that the payload is, too.
    """

    state: ShardState
    totals: str
    before_id: str
    before: Entry | None
    fields: Entry | None
    whole: bool
    after: Entry | None


class Substitutes:
    """The substitutes of all collections. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def of_shard(self, collection_id: str, shard: int, after: str = FIRST_ID) -> Mapping[str, Entry]:
        """The substitutes for entries of the shard behind the id `after`, by the ids of these. Raises Corrupt."""
        key, prefix = self._keys.substitutes(collection_id), f"{shard}:"
        names: Sequence[bytes] = await self._command("HKEYS", key)
        texts = [name.decode() for name in names]
        ids = [text.removeprefix(prefix) for text in texts if text.startswith(prefix) and not text.endswith(":d")]
        wanted = [id_ for id_ in ids if position_of(id_) > position_of(after)]
        if not wanted:
            return {}
        values = await self._command("HMGET", key, *(f"{prefix}{id_}{part}" for id_ in wanted for part in ("", ":d")))
        pairs = zip(wanted, values[0::2], values[1::2], strict=True)
        # Of what was trimmed since, the substitute is gone too.
        there = [(id_, text, payload) for id_, text, payload in pairs if text and payload]
        return {id_: _decode(collection_id, shard, id_, text, payload) for id_, text, payload in there}

    async def put_back(self, collection_id: str, shard: int, copy: Entry) -> bool:
        """Has readers take `copy` for the damaged or missing entry of its id. False when that was trimmed meanwhile, or
        is not damaged. Raises Gone, and Corrupt unless the copy is what was written there.
        """
        around = await self._around(collection_id, shard, copy.id)
        if around.whole:
            return False
        if not _is_what_was_written(copy, around):
            name = entry_name(collection_id, shard, copy.id)
            raise Corrupt(f"the copy of {name} is not what was written there", name)
        return await self._put(collection_id, shard, copy, "")

    async def skip(self, collection_id: str, shard: int, entry_id: str) -> Skipped | None:
        """Has readers pass over the damaged or missing entry. The positions among which operations are lost with it,
        which the state keeps too; None when it was trimmed meanwhile, or is not damaged. Raises Gone.
        """
        around = await self._around(collection_id, shard, entry_id)
        if around.whole or entry_id in await self.of_shard(collection_id, shard):
            return None
        first = position_of(entry_id)
        if around.fields is None and around.before is not None:
            first = min(first, position_of(around.before.id) + max(1, around.before.count))
        end = position_of(around.after.id) if around.after is not None else around.state.head
        skipped = Skipped(entry_id, first, end, round(time.time(), 3))
        gap = _without_operations(entry_id, around)
        put = await self._put(collection_id, shard, gap, msgspec.json.encode(skipped).decode())
        return skipped if put else None

    async def skipped(self, collection_id: str, shard: int) -> list[Skipped]:
        """Everything that was ever skipped of the shard's log."""
        text = await self._command("HGET", self._keys.state(collection_id), f"skipped:{shard}")
        return [] if text is None else _decode_skipped(collection_id, text)

    async def all_skipped(self) -> AsyncIterator[tuple[str, int, Skipped]]:
        """Everything that was ever skipped, of all collections: collection, shard, and what. Raises Corrupt."""
        cursor = b"0"
        while True:
            cursor, found = await self._command("SCAN", cursor, "MATCH", self._keys.every_state, "COUNT", SCAN_COUNT)
            replies = await SKIPPED.run_many(self._redis, [([key.decode()], []) for key in found])
            for key, reply in zip(found, replies, strict=True):
                collection_id = self._keys.collection_of_state(key.decode())
                for field, text in zip(reply[0::2], reply[1::2], strict=True):
                    for skipped in _decode_skipped(collection_id, text):
                        yield collection_id, int(field.partition(b":")[2]), skipped
            if int(cursor) == 0:
                return

    async def _command(self, *call: Any) -> Any:
        return await retry_idempotent(lambda: command(self._redis, *call), writes=False)

    async def _around(self, collection_id: str, shard: int, entry_id: str) -> _Around:
        fields = [*state_fields(shard), f"ops:{shard}", f"bytes:{shard}"]
        answer = await self._run(collection_id, shard, ["around", entry_id, *fields], writes=False)
        values, before, own, after = answer
        substitutes = await self.of_shard(collection_id, shard)
        *state, ops, size = values

        position = position_of(entry_id)
        below = [each for each in substitutes.values() if position_of(each.id) < position]
        above = [each for each in substitutes.values() if position_of(each.id) > position]

        def neighbour(found: Sequence[RawEntry], others: Sequence[Entry]) -> tuple[str, Entry | None]:
            """The nearest of the entry that the stream has on one side, if any, and the substitutes on that side: its
            id, and the entry unless it is damaged.
            """
            entries: dict[str, Entry | None] = {}
            for raw in found:
                entries[raw[0].decode()] = None
                with contextlib.suppress(DamagedEntry):
                    entries[raw[0].decode()] = verified_entry(collection_id, shard, raw)
            entries |= {other.id: other for other in others}
            nearest = min(entries, key=lambda each: abs(position_of(each) - position), default=FIRST_ID)
            return nearest, entries.get(nearest)

        before_id, entry_before = neighbour(before, below)
        _, entry_after = neighbour(after, above)
        fields_of, whole = None, False
        if own:
            try:
                fields_of = verified_entry(collection_id, shard, own[0])
                whole = True
                if entry_before is not None and entry_before.id == fields_of.previous:
                    check_follows(collection_id, shard, entry_before, fields_of)
            except DamagedEntry as damage:
                fields_of, whole = damage.fields, False
        totals = f"{int(ops or 0)} {int(size or 0)}"
        return _Around(parse_state(shard, state), totals, before_id, entry_before, fields_of, whole, entry_after)

    async def _put(self, collection_id: str, shard: int, substitute: Entry, skipped: str) -> bool:
        text = msgspec.json.encode(raw_texts(substitute))
        args: list[Argument] = ["put", shard, substitute.id, text, substitute.payload, skipped]
        return bool(await self._run(collection_id, shard, args, writes=True))

    async def _run(self, collection_id: str, shard: int, args: Sequence[Argument], *, writes: bool) -> Any:
        keys = self._keys
        names = [keys.state(collection_id), keys.log(collection_id, shard), keys.substitutes(collection_id)]
        answer = await SUBSTITUTE.run(self._redis, names, args, writes=writes)
        if answer is None:
            raise Gone(f"collection {collection_id} was deleted")
        return answer


def _decode_skipped(collection_id: str, text: bytes) -> list[Skipped]:
    try:
        return _SKIPPED_ENTRIES.decode(text)
    except msgspec.DecodeError as error:
        message = f"the list of what was skipped of {collection_id} cannot be read: {error}"
        raise Corrupt(message, state_name(collection_id)) from error


def _decode(collection_id: str, shard: int, entry_id: str, text: bytes, payload: bytes) -> Entry:
    """A stored substitute. Raises Corrupt: it may be damaged itself."""
    try:
        previous, first, end, last, count, totals, time_ms, request, before, checksum, chain = _TEXTS.decode(text)
        entry = Entry(
            entry_id, previous, int(first), int(end), last == "1", int(count), payload, totals, int(time_ms), checksum,
            chain, before, request,
        )  # fmt: skip
    except (msgspec.DecodeError, ValueError) as error:
        raise DamagedEntry(collection_id, shard, entry_id, f"its substitute is damaged: {error}") from error
    is_copy = entry.count > 0
    if payload_checksum(payload) != checksum or (is_copy and chain_of_entry(entry) != chain):
        raise DamagedEntry(collection_id, shard, entry_id, "its substitute is damaged")
    return entry


def _is_what_was_written(copy: Entry, around: _Around) -> bool:
    """Whether the copy proves itself, and everything that is known of the entry and its neighbours says that it is the
    one that was written there; something at least must.
    """
    if not copy.chain or chain_of_entry(copy) != copy.chain or payload_checksum(copy.payload) != copy.checksum:
        return False
    signs: list[bool] = []
    if around.fields is not None:
        signs.append(around.fields.chain == copy.chain)
    if around.after is not None and around.after.previous == copy.id and around.after.before_chain:
        signs.append(around.after.before_chain == copy.chain)
    if around.state.tail == copy.id:
        signs.append(around.state.chain == copy.chain)
    if around.before is not None and around.before.id == copy.previous and around.before.chain:
        signs.append(around.before.chain == copy.before_chain)
    return bool(signs) and all(signs)


def _without_operations(entry_id: str, around: _Around) -> Entry:
    """A substitute without operations, which links what is before the entry to what is after it, and completes or
    continues the append that the entry belonged to.
    """
    before, own, after, state = around.before, around.fields, around.after, around.state
    chain = ""
    if after is not None and after.previous == entry_id:
        chain = after.before_chain
    elif state.tail == entry_id:
        chain = state.chain
    totals = around.totals
    if after is not None:
        ops, size = (int(total) for total in after.totals.split())
        totals = f"{ops - after.count} {size - len(after.payload)}"
    elif own is not None:
        totals = own.totals
    if own is not None:
        checksum = payload_checksum(EMPTY_PAYLOAD)
        return dataclasses.replace(own, count=0, payload=EMPTY_PAYLOAD, totals=totals, checksum=checksum, request_id="")
    position = position_of(entry_id)
    gap = Entry(
        entry_id, around.before_id, position, position + 1, last=True, count=0, payload=EMPTY_PAYLOAD,
        totals=totals, checksum=payload_checksum(EMPTY_PAYLOAD), chain=chain,
        before_chain=before.chain if before else "",
    )  # fmt: skip
    if before is not None and not before.last:
        ended = after is None or after.first != before.first
        return dataclasses.replace(gap, first=before.first, end=before.end, last=ended, time_ms=before.time_ms)
    if after is not None and after.first <= position_of(entry_id):
        return dataclasses.replace(gap, first=after.first, end=after.end, last=False, time_ms=after.time_ms)
    return gap
