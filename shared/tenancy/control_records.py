"""Control records, which operators write: keys, plans, tenants' plans, as small records with versions.

Their home is the bucket, for a key that was revoked must stay so whatever Redis comes back with. Redis has a copy of
the newest version of each, where frontends look them up.

A change:

1. The newest version is read from the bucket.
2. The next one is created, if nobody else has: that is its commit. It names the version that it follows by its hash.
3. It is the commit only while it has a successor that follows it, or none: old versions are deleted, so a writer that
   slept for an hour may create one whose successors are there already. Such a writer begins anew, as one that lost.
4. It is put into Redis, where an older one never replaces a newer one, and the *generation*, a random word, is drawn
   anew: whoever remembers records asks for it once a second.
5. The answer goes out. When Redis takes nothing, it says that the change holds already, and will be everywhere once
   Redis is back: the log service compares the bucket with Redis all the time (`project`), and before it opens a Redis.

A version that cannot be read counts as a record that was deleted, and never as the version before it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec
from redis.asyncio import Redis

from shared.errors import AlreadyExists, Backoff, Corrupt, Garbled, InvalidArgument, Unavailable
from shared.objects.keys import CONTROL as CONTROL_PREFIX
from shared.objects.keys import control_prefix
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script
from shared.tenancy.control_model import (
    NO_BODY,
    RECORD_BYTES_MAX,
    ControlKind,
    Envelope,
    content_of,
    decode_envelope,
    parse_key,
    place_of,
)

CONTROL: Final = Script("shared.tenancy", "control")

CHANGE_TRIES: Final = 16
"""Times that a change which loses against others is tried."""
KEPT_S: Final = 3600.0
"""Time for which a version that was replaced is kept, in seconds."""
SCAN_COUNT: Final = 500
PROJECTED_AT_ONCE: Final = 200

log = get_logger(__name__)


class Changed(NamedTuple):
    """A change that holds: the new version, and whether Redis has it, so that frontends know within two seconds."""

    envelope: Envelope
    live: bool


class ControlRecord(msgspec.Struct, frozen=True):
    """A record as it is in Redis: its version, and its body, NO_BODY when it was deleted or cannot be read."""

    version: int
    name: str
    body: msgspec.Raw

    @property
    def content(self) -> bytes | None:
        """The record as JSON; None when there is none."""
        return content_of(self.body)


class _Version(NamedTuple):
    """A version in a listing of the bucket."""

    number: int
    key: str
    written_s: float


Change = Callable[[bytes | None], bytes | None]
"""Makes the new body (JSON; None: delete) of the present one (None: there is no record). May raise."""

_RECORD: Final = msgspec.json.Decoder(ControlRecord)
_encoded: Final = msgspec.json.encode


class ControlRecords:
    """The control records of a cluster. `writer` names this process in what it writes. Everything raises Unavailable
    while the bucket, or for look-ups Redis, is away.
    """

    def __init__(self, redis: Redis, keys: Keys, objects: ObjectStore, clock: Clock, writer: str) -> None:
        self._redis = redis
        self._keys = keys
        self._objects = objects
        self._clock = clock
        self._writer = writer

    # Changes, in the bucket

    async def read(self, kind: ControlKind, name: str) -> Envelope | None:
        """The newest version in the bucket, deletions included; None when there is none. Raises Corrupt."""
        newest = max([version async for version in self._versions(kind, place_of(name))], default=None)
        return None if newest is None else await self._fetch(newest.key)

    async def change(self, kind: ControlKind, name: str, change: Change) -> Changed:
        """Replaces the record's body. `change` is called again when another writer was faster, and what it raises is
        raised. Raises Backoff when others are always faster, and InvalidArgument for a record that is too long.
        """
        for _ in range(CHANGE_TRIES):
            envelope = await self._next(kind, name, change)
            if envelope is not None:
                return Changed(envelope, await self._put_live(envelope))
        raise Backoff("The record is being changed by others; try again")

    async def create(self, kind: ControlKind, name: str, body: bytes) -> Changed:
        """Makes a new record. Raises AlreadyExists when there is one."""

        def new(present: bytes | None) -> bytes:
            if present is not None:
                raise AlreadyExists(f"{name} is there already")
            return body

        return await self.change(kind, name, new)

    async def _next(self, kind: ControlKind, name: str, change: Change) -> Envelope | None:
        """The next version, committed; None when another writer was faster."""
        newest = max([version async for version in self._versions(kind, place_of(name))], default=None)
        present = None if newest is None else await self._readable(newest)
        body = change(None if present is None else present.content)
        envelope = Envelope(
            kind=kind,
            name=name,
            version=1 if newest is None else newest.number + 1,
            follows="" if present is None else present.sha256,
            written_s=self._clock.now(),
            writer=f"{self._writer} {secrets.token_hex(4)}",  # racing writers have different bytes
            body=msgspec.Raw(NO_BODY if body is None else body),
        )
        data = envelope.encode()
        if len(data) > RECORD_BYTES_MAX:  # nobody would read it
            raise InvalidArgument(f"The record would have {len(data)} bytes, at most {RECORD_BYTES_MAX} are kept")
        if not await self._objects.create(envelope.key, data):
            return None
        written = decode_envelope(data, envelope.key)
        return written if await self._is_followed(written) else None

    async def _is_followed(self, envelope: Envelope) -> bool:
        """Whether the version is the newest, or its successor follows it."""
        place = place_of(envelope.name)
        later = [each async for each in self._versions(envelope.kind, place) if each.number > envelope.version]
        if not later:
            return True
        first = min(later)
        return first.number == envelope.version + 1 and (await self._fetch(first.key)).follows == envelope.sha256

    async def _fetch(self, key: str) -> Envelope:
        return decode_envelope(await self._objects.get(key), key)

    async def _versions(self, kind: ControlKind, place: str) -> AsyncIterator[_Version]:
        async for info in self._objects.list(control_prefix(kind, place)):
            parsed = parse_key(info.key)
            if parsed is not None:
                yield _Version(parsed[2], info.key, info.modified_s)

    async def _put_live(self, envelope: Envelope) -> bool:
        try:
            await self._put(envelope.kind, [_live(envelope)])
        except (Unavailable, Backoff) as error:
            log.warning("control_record_not_live", record=envelope.key, message=error.message)
            return False
        return True

    # Look-ups, in Redis

    async def look_up(self, kind: ControlKind, name: str) -> ControlRecord | None:
        """The record as Redis has it; None when it has none."""
        call = ("HGET", self._keys.control(kind), place_of(name))
        found = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        return None if found is None else _decoded(found, f"{CONTROL_PREFIX}{kind}/{place_of(name)}")

    async def all(self, kind: ControlKind) -> AsyncIterator[ControlRecord]:
        """Every record of this kind that Redis has, in no order; one that changes meanwhile may come twice."""
        cursor: bytes | str | int = "0"
        while True:
            call = ("HSCAN", self._keys.control(kind), cursor, "COUNT", SCAN_COUNT)
            cursor, found = await retry_idempotent(lambda call=call: command(self._redis, *call), writes=False)  # type: ignore[misc] # no type for a lambda with a default
            for place, data in found.items():
                yield _decoded(data, f"{CONTROL_PREFIX}{kind}/{place.decode(errors='replace')}")
            if int(cursor) == 0:
                return

    async def count(self, kind: ControlKind) -> int:
        """Number of records of this kind that Redis has, those included that were deleted."""
        return int(await retry_idempotent(lambda: command(self._redis, "HLEN", self._keys.control(kind)), writes=False))

    async def generation(self) -> str:
        """The word that is another one whenever any record has changed; empty before the first change."""
        found = await retry_idempotent(lambda: command(self._redis, "GET", self._keys.control_generation), writes=False)
        return (found or b"").decode(errors="replace")

    # The work of the log service

    async def project(self, *, opening: bool = False) -> int:
        """Brings what Redis has up to the bucket; returns how many records were newer there. `opening`: Redis may have
        gone back, so that what processes remember of it does not count, even if no record has changed.
        """
        newest = await self._newest_by_place()
        changed = 0
        for kind in ControlKind:
            behind = await self._behind(kind, newest.get(kind, {}))
            for start in range(0, len(behind), PROJECTED_AT_ONCE):
                batch = [await self._as_live(*each) for each in behind[start : start + PROJECTED_AT_ONCE]]
                changed += await self._put(kind, batch)
        if opening and not changed:
            await self._put(ControlKind.KEYS, [])
        if changed:
            log.warning("control_records_projected", records=changed)
        return changed

    async def tidy(self) -> int:
        """Deletes versions that were replaced more than `KEPT_S` ago; returns how many. The newest ones stay."""
        versions: dict[tuple[ControlKind, str], list[_Version]] = {}
        async for info in self._objects.list(CONTROL_PREFIX):
            parsed = parse_key(info.key)
            if parsed is not None:
                kind, place, number = parsed
                versions.setdefault((kind, place), []).append(_Version(number, info.key, info.modified_s))
        doomed = [key for each in versions.values() for key in superseded(each, self._clock.now())]
        await self._objects.delete(doomed)
        return len(doomed)

    async def _newest_by_place(self) -> dict[ControlKind, dict[str, _Version]]:
        newest: dict[ControlKind, dict[str, _Version]] = {}
        async for info in self._objects.list(CONTROL_PREFIX):
            parsed = parse_key(info.key)
            if parsed is not None:  # versions of a record come in ascending order
                newest.setdefault(parsed[0], {})[parsed[1]] = _Version(parsed[2], info.key, info.modified_s)
        return newest

    async def _behind(self, kind: ControlKind, newest: Mapping[str, _Version]) -> list[tuple[str, _Version]]:
        """Records of which the bucket has a newer version than Redis."""
        found: list[tuple[str, _Version]] = []
        places = list(newest)
        for start in range(0, len(places), SCAN_COUNT):
            batch = places[start : start + SCAN_COUNT]
            call = ("HMGET", self._keys.control(kind), *batch)
            values = await retry_idempotent(lambda call=call: command(self._redis, *call), writes=False)  # type: ignore[misc] # no type for a lambda with a default
            for place, value in zip(batch, values, strict=True):
                if value is None or _version(value) < newest[place].number:
                    found.append((place, newest[place]))
        return found

    async def _as_live(self, place: str, version: _Version) -> tuple[str, int, bytes]:
        """The version as Redis has it; as a deletion when it is damaged: what it forbade must not be allowed."""
        envelope = await self._readable(version)
        return (
            _live(envelope)
            if envelope
            else (place, version.number, _encoded(ControlRecord(version.number, "", msgspec.Raw(NO_BODY))))
        )

    async def _readable(self, version: _Version) -> Envelope | None:
        """The version; None, said in the log, when it is damaged."""
        try:
            return await self._fetch(version.key)
        except (Corrupt, ObjectNotFound) as error:
            log.exception("control_record_damaged", record=version.key, message=error.message)
            return None

    async def _put(self, kind: ControlKind, records: Iterable[tuple[str, int, bytes]]) -> int:
        args: list[Argument] = [secrets.token_hex(8)]
        for place, version, data in records:
            args += [place, version, data]
        return int(await CONTROL.run(self._redis, [self._keys.control(kind), self._keys.control_generation], args))


def _decoded(data: bytes, name: str) -> ControlRecord:
    """The record as Redis has it. Raises Garbled for one that cannot be read, which the log service projects anew."""
    try:
        return _RECORD.decode(data)
    except ValueError as error:
        raise Garbled(f"the control record cannot be read: {error}", name) from error


def _version(data: bytes) -> int:
    """The version of a record as Redis has it; one that cannot be read is older than all."""
    try:
        return _RECORD.decode(data).version
    except ValueError:
        return -1


def _live(envelope: Envelope) -> tuple[str, int, bytes]:
    """A version as Redis has it: field, version, JSON."""
    return (
        place_of(envelope.name),
        envelope.version,
        _encoded(ControlRecord(envelope.version, envelope.name, envelope.body)),
    )


def superseded(versions: Sequence[_Version], now_s: float) -> list[str]:
    """Keys of those versions of one record that may be deleted: their successors are older than `KEPT_S`."""
    ordered = sorted(versions)
    return [before.key for before, after in pairwise(ordered) if now_s - after.written_s > KEPT_S]
