"""The API keys of a cluster: made, shown, rotated and revoked as control records, and looked up by frontends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final, NamedTuple

from redis.asyncio import Redis

from shared.errors import Corrupt, InvalidArgument, NotFound
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.tenancy.api_keys import KeyRecord, NewKey, decode_record, draw_key, encode_record, problem_of
from shared.tenancy.control_model import ControlKind
from shared.tenancy.control_records import ControlRecords

log = get_logger(__name__)

OVERLAP_S_MAX: Final = 30 * 24 * 3600.0
"""Longest time for which a key that was rotated holds beside its successor, in seconds."""


class Made(NamedTuple):
    """A record that was changed. `text`: the new key, which is nowhere kept; None when there is no new one. `live`:
    whether frontends know within two seconds; when not, they will once Redis is back.
    """

    record: KeyRecord
    text: str | None
    live: bool


def missing_key(key_id: str) -> NotFound:
    """The 404 of a key that is not there, or that the sender cannot see."""
    return NotFound(f"Key [{key_id}] does not exist")


class KeyStore:
    """Keys over the control records. Everything raises Unavailable while the bucket (for changes) or Redis is away."""

    def __init__(self, records: ControlRecords, redis: Redis, keys: Keys, clock: Clock) -> None:
        self._records = records
        self._redis = redis
        self._keys = keys
        self._clock = clock

    # For frontends that authenticate

    async def look_up(self, key_id: str) -> bytes | None:
        """The record of a key as JSON; None when there is none."""
        found = await self._records.look_up(ControlKind.KEYS, key_id)
        return None if found is None else found.content

    async def generation(self) -> str:
        """The word that is another one whenever a record has changed."""
        return await self._records.generation()

    async def note_used(self, key_ids: Sequence[str], minute: int) -> None:
        """Writes down that these keys were used in this minute since the epoch."""
        fields = [field for key_id in key_ids for field in (key_id, minute)]
        await retry_idempotent(lambda: command(self._redis, "HSET", self._keys.used_keys, *fields), writes=True)

    # For operators

    async def last_used(self, key_ids: Sequence[str]) -> dict[str, float | None]:
        """When each key was used last, in seconds since the epoch, to the minute; None: not since Redis was lost."""
        if not key_ids:
            return {}
        call = ("HMGET", self._keys.used_keys, *key_ids)
        minutes = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        return {
            key_id: None if minute is None else int(minute) * 60.0
            for key_id, minute in zip(key_ids, minutes, strict=True)
        }

    async def all(self, visible: Callable[[KeyRecord], bool]) -> list[KeyRecord]:
        """The records of which `visible` is true, the oldest first. Those that cannot be read are left out."""
        found = {record.id: record async for record in self._readable() if visible(record)}
        return sorted(found.values(), key=lambda record: (record.created_s, record.id))

    async def _readable(self) -> AsyncIterator[KeyRecord]:
        async for found in self._records.all(ControlKind.KEYS):
            if found.content is None:
                continue
            try:
                yield decode_record(found.content)
            except ValueError as error:
                log.warning("key_record_not_read", key=found.name, message=str(error))

    async def get(self, key_id: str) -> KeyRecord:
        """The record as frontends go by it. Raises NotFound."""
        data = await self.look_up(key_id)
        if data is None:
            raise missing_key(key_id)
        return decode_record(data)

    async def create(self, make: Callable[[NewKey], KeyRecord]) -> Made:
        """A new key with the record that `make` gives it. Raises InvalidArgument."""
        key = draw_key()
        record = make(key)
        problem = problem_of(record)
        if problem:
            raise InvalidArgument(problem)
        changed = await self._records.create(ControlKind.KEYS, key.id, encode_record(record))
        return Made(record, key.text, changed.live)

    async def rotate(self, key_id: str, overlap_s: float, allowed: Callable[[KeyRecord], None]) -> Made:
        """Another key for the same record, beside which the present one holds for `overlap_s` seconds more. `allowed`
        raises for a record that may not be changed. Raises NotFound, and InvalidArgument for one that was revoked.
        """
        key = draw_key(key_id)

        def rotated(record: KeyRecord) -> KeyRecord:
            allowed(record)
            if not record.usable(self._clock.now()):
                raise InvalidArgument(f"Key [{key_id}] was revoked or has expired")
            return record.rotated(key.sha256, self._clock.now(), overlap_s)

        record, live = await self._change(key_id, rotated)
        return Made(record, key.text, live)

    async def revoke(self, key_id: str, allowed: Callable[[KeyRecord], None]) -> Made:
        """Revokes a key for good; once more changes nothing. `allowed` as for `rotate`. Raises NotFound."""

        def revoked(record: KeyRecord) -> KeyRecord:
            allowed(record)
            return record.revoked(self._clock.now())

        record, live = await self._change(key_id, revoked)
        return Made(record, None, live)

    async def revoke_all(self, doomed: Iterable[KeyRecord]) -> bool:
        """Revokes keys, whatever they are; whether frontends know of all of it within two seconds."""
        return all([(await self.revoke(record.id, lambda _: None)).live for record in doomed])

    async def _change(self, key_id: str, change: Callable[[KeyRecord], KeyRecord]) -> tuple[KeyRecord, bool]:
        made: list[KeyRecord] = []

        def changed(body: bytes | None) -> bytes:
            if body is None:
                raise missing_key(key_id)
            try:
                made.append(change(decode_record(body)))
            except ValueError as error:
                raise Corrupt(f"the record of key {key_id} cannot be read: {error}") from error
            return encode_record(made[-1])

        outcome = await self._records.change(ControlKind.KEYS, key_id, changed)
        return made[-1], outcome.live
