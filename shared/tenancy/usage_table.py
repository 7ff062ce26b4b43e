"""The usage of hours that are not rolled up yet, in Redis: one hash for each hour.

```text
pc:{catalog}:usage              set: the hours, counted from the epoch, that have a hash
pc:{catalog}:usage:<hour>       hash
  use <source> <tenant> <collection>    JSON: the totals of a source for a subject; tenant and source are quoted
  seq <source>                          the sequence of the batch that was taken last from the source
  changes                               batches that were taken
```
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

import msgspec
from redis.asyncio import Redis

from shared.errors import Corrupt
from shared.process.telemetry import get_logger
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script
from shared.tenancy.usage import Subject, UsageEntry

log = get_logger(__name__)

FLUSH: Final = Script("shared.tenancy", "usage_flush")
REMOVE: Final = Script("shared.tenancy", "usage_remove")

SCAN_COUNT: Final = 1000

HOUR_DIGITS_MAX: Final = 7
"""Digits of an hour, until the year 3110: one with more is damaged, and has no date."""

_USE: Final = "use"
_encoded: Final = msgspec.json.encode
_USED: Final = msgspec.json.Decoder(dict[str, int])


class HourInRedis(NamedTuple):
    """The entries of an hour, and how often it had changed before they were read."""

    entries: list[UsageEntry]
    changes: int


class UsageTable:
    """The hashes of all hours. Everything raises Unavailable while Redis is away."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def flush(self, hour: int, source: str, sequence: int, totals: Mapping[Subject, Mapping[str, int]]) -> int:
        """Puts totals of a source there. Returns the sequence that it had taken last from the source before: 0 when
        what it had of it is gone. Raises UnknownOutcome, StorageFull.
        """
        name = quote(source, safe="")
        args: list[Argument] = [hour, name, sequence]
        for subject, used in totals.items():
            args += [f"{_USE} {name} {quote(subject.tenant, safe='')} {subject.collection}", _encoded(dict(used))]
        return int(await FLUSH.run(self._redis, self._hash(hour), args))

    async def hours(self) -> list[int]:
        """The hours that have a hash, the oldest first. What is no number among them is no hour, and passed over."""
        call = ("SMEMBERS", self._keys.usage_hours)
        found: set[bytes] = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        return sorted(int(hour) for hour in found if hour.isdigit() and len(hour) <= HOUR_DIGITS_MAX)

    async def read(self, hour: int) -> HourInRedis:
        """The entries of an hour; none when it has no hash. One that cannot be read is named in the log and left out:
        its source says it again, or the bucket has it as it was at the last checkpoint.
        """
        key = self._keys.usage(str(hour))
        changes = await retry_idempotent(lambda: command(self._redis, "HGET", key, "changes"), writes=False)
        if changes is not None and not changes.isdigit():
            log.error("usage_unreadable", hour=hour, field="changes", value=repr(changes[:60]))
            changes = await retry_idempotent(lambda: command(self._redis, "HSET", key, "changes", 0), writes=True)
        found: dict[bytes, bytes] = {}
        cursor: bytes | str | int = "0"
        while True:
            scan = functools.partial(command, self._redis, "HSCAN", key, cursor, "COUNT", SCAN_COUNT)
            cursor, page = await retry_idempotent(scan, writes=False)
            found |= page
            if int(cursor) == 0:
                break
        entries: list[UsageEntry] = []
        for field, value in found.items():
            try:
                entry = _entry(field, value)
            except Corrupt as error:
                log.error("usage_unreadable", hour=hour, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
                continue
            entries += [entry] if entry else []
        return HourInRedis(entries, int(changes or 0))

    async def remove(self, hour: int, changes: int) -> bool:
        """Removes an hour, unless it has changed since it was read."""
        return bool(await REMOVE.run(self._redis, self._hash(hour), [hour, changes]))

    def _hash(self, hour: int) -> list[str]:
        return [self._keys.usage(str(hour)), self._keys.usage_hours]


def _entry(field: bytes, value: bytes) -> UsageEntry | None:
    """The entry in a field of the hash; None of another field. Raises Corrupt."""
    kind, *parts = field.decode("utf-8", "replace").split(" ")
    if kind != _USE:
        return None
    try:
        source, tenant, collection = parts
        return UsageEntry(unquote(source), unquote(tenant), collection, _USED.decode(value))
    except (ValueError, msgspec.MsgspecError) as error:
        raise Corrupt(f"the usage in {field!r} cannot be read: {error}") from error
