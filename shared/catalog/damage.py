"""The registry of damage: what any process found damaged, by name, until it is whole again, replaced or given up.

A name is an object's key in the bucket, or that of something in Redis (`shared.log.naming`). The registry is for people
and for what repairs: nothing is read or refused because of what it says. It is bounded, and may be lost with Redis;
`polychrome verify` finds again what is in it, and more.

A process reports by a `DamageReporter`, which neither waits nor raises: it keeps the newest report of each name and
sends them in the background, each name at most once in REPORT_AGAIN_S unless there is something new to say.
"""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import msgspec
from prometheus_client import Gauge
from redis.asyncio import Redis

from shared.catalog.row_names import is_row_name
from shared.errors import Backoff, Corrupt, Unavailable
from shared.log.naming import is_state_name, is_stream_name
from shared.objects.keys import CATALOG, JOURNAL, parse_log_key, parse_root_key, parse_shard_key
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX, Script
from shared.segment.format import RECORDS

DAMAGE: Final = Script("shared.catalog", "damage")

NAMES_MAX: Final = 1000
"""Most names in the registry; what is found beyond is in the log of the process that found it, and counts again when
others were cleared."""

TEXT_BYTES_MAX: Final = 512
"""Most bytes of each text of an entry, its name included. With NAMES_MAX it bounds the registry to some megabytes."""

REPORT_AGAIN_S: Final = 60.0
"""A damage about which nothing is new is reported again only so many seconds after the last report."""

RETRY_S: Final = 1.0
REMEMBERED_MAX: Final = 10_000

DAMAGED: Final = Gauge(
    "polychrome_damaged_objects", "Objects, log entries and states in the registry of damage, by kind.", ["kind"]
)

log = get_logger(__name__)


class DamageKind(enum.StrEnum):
    """Kinds of stored things. `DERIVED` is a file of a segment that can be made again of its records, `OTHER` anything
    with a name of no known form: a shard, for instance, of which it is not known what part is damaged.
    """

    MANIFEST = "manifest"
    RECORDS = "records"
    DERIVED = "derived"
    SNAPSHOT = "snapshot"
    ROOT = "root"
    JOURNAL = "journal"
    ENTRY = "entry"
    SEALED = "sealed"
    STATE = "state"
    ROW = "row"
    OTHER = "other"


SEGMENT_KINDS: Final = (DamageKind.DERIVED, DamageKind.RECORDS)
"""Kinds of files of segments: a compaction rewrites what it can of them."""

_OF_SHARD: Final = {"manifests": DamageKind.MANIFEST, "segments": DamageKind.DERIVED, "log": DamageKind.ENTRY}


def kind_of(name: str) -> DamageKind:
    """The kind of what has this name: the key of an object, or a name of `shared.log.naming`."""
    if name.startswith(JOURNAL):
        return DamageKind.JOURNAL
    if name.startswith(CATALOG):
        return DamageKind.SNAPSHOT
    if parse_root_key(name) is not None:
        return DamageKind.ROOT
    if parse_log_key(name) is not None:
        return DamageKind.SEALED
    of_shard = parse_shard_key(name)
    if of_shard is not None:
        return DamageKind.RECORDS if name.endswith(f"/{RECORDS}") else _OF_SHARD[of_shard.kind]
    if is_stream_name(name):
        return DamageKind.ENTRY
    if is_row_name(name):
        return DamageKind.ROW
    return DamageKind.STATE if is_state_name(name) else DamageKind.OTHER


class Damage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is damaged: its name and kind, what was found (`what`), what is being done about it (`doing`),
    which process found it (`by`), and the shard whose read or compaction met it. `found_s` and `seen_s` are when it was
    found first and last, in seconds since the epoch; the registry knows the former.
    """

    name: str
    kind: DamageKind
    what: str
    doing: str
    by: str
    seen_s: float
    collection: str = ""
    shard: int | None = None
    found_s: float = 0.0


_DAMAGE: Final = msgspec.json.Decoder(Damage)


class Damages:
    """The registry in Redis. Everything raises Unavailable while Redis is away, and writes Backoff, too."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._key = keys.damage

    async def report(self, damage: Damage) -> bool:
        """Notes a damage, or what is newer about it. False when the registry is full of others."""
        name, what, doing = map(_cut, (damage.name, damage.what, damage.doing))
        entry = msgspec.structs.replace(damage, name=name, what=what, doing=doing, found_s=0.0)
        return bool(await DAMAGE.run(self._redis, [self._key], ["report", NAMES_MAX, name, msgspec.json.encode(entry)]))

    async def clear(self, names: Iterable[str]) -> int:
        """Forgets what is whole again, replaced or given up. Returns how many of the names were in the registry."""
        cut, cleared = [_cut(name) for name in names], 0
        for start in range(0, len(cut), PIPELINE_MAX):
            cleared += await DAMAGE.run(self._redis, [self._key], ["clear", *cut[start : start + PIPELINE_MAX]])
        return cleared

    async def all(self) -> list[Damage]:
        """All damages, those that were found first at the beginning."""
        values: dict[bytes, bytes] = await retry_idempotent(
            lambda: command(self._redis, "HGETALL", self._key), writes=False
        )
        found = [_decode(name.decode("utf-8", "replace"), value) for name, value in values.items()]
        return sorted(found, key=lambda damage: (damage.found_s, damage.name))

    async def names(self) -> set[str]:
        """The names of all damages. One that was too long is cut."""
        found: list[bytes] = await retry_idempotent(lambda: command(self._redis, "HKEYS", self._key), writes=False)
        return {name.decode("utf-8", "replace") for name in found}

    async def measure(self) -> list[Damage]:
        """All damages; brings the metric up to date, in the process that is to show it."""
        found, counts = await self.all(), dict.fromkeys(DamageKind, 0)
        for damage in found:
            counts[damage.kind] += 1
        for kind, count in counts.items():
            DAMAGED.labels(kind.value).set(count)
        return found


def _decode(name: str, value: bytes) -> Damage:
    """The damage of this name in a field of the registry; one that is damaged itself says so."""
    found_ms, _, text = value.partition(b" ")
    try:
        damage = _DAMAGE.decode(text)
        return msgspec.structs.replace(damage, name=name, found_s=int(found_ms) / 1000)
    except ValueError as error:
        return Damage(name, kind_of(name), f"what the registry says of it is damaged: {error}", "", "", 0.0)


def _cut(text: str) -> str:
    """The text, or as much of its beginning as an entry may have."""
    return text.encode("utf-8", "replace")[:TEXT_BYTES_MAX].decode("utf-8", "ignore")


class _Reported(NamedTuple):
    what: str
    doing: str
    at_s: float


class DamageReporter:
    """Reports of one process, `by`. `found` and `whole` return at once and raise nothing; `run` sends what they were
    told. For one event loop.
    """

    def __init__(self, registry: Damages, by: str, clock: Clock) -> None:
        self._registry = registry
        self._by = by
        self._clock = clock
        self._reported: OrderedDict[str, _Reported] = OrderedDict()
        """Reports of late by name, least recent first."""
        self._waiting: OrderedDict[str, Damage | None] = OrderedDict()
        """Reports to be sent, by name: a damage, or None for a name to be cleared."""
        self._wake = asyncio.Event()
        self._sending = False

    @property
    def reported(self) -> Collection[str]:
        """The names that this process has reported lately, and not cleared."""
        return self._reported.keys()

    @property
    def unsent(self) -> bool:
        """Whether the registry was not told everything yet."""
        return self._sending or bool(self._waiting)

    def found(self, name: str, what: str, doing: str, *, collection: str = "", shard: int | None = None) -> None:
        """Something was found damaged. A name that was reported a moment ago in the same words is passed over."""
        now_s, before = self._clock.monotonic(), self._reported.get(name)
        if before is not None and before[:2] == (what, doing) and now_s - before.at_s < REPORT_AGAIN_S:
            return
        if before is None or before[:2] != (what, doing):
            log.error("damage_found", object=name, what=what, doing=doing)
        self._reported[name] = _Reported(what, doing, now_s)
        self._reported.move_to_end(name)
        if len(self._reported) > REMEMBERED_MAX:
            self._reported.popitem(last=False)
        self._send(name, Damage(name, kind_of(name), what, doing, self._by, self._clock.now(), collection, shard))

    def met(self, error: Corrupt, doing: str, collection: str, shard: int) -> str:
        """A read or a compaction of a shard met damage. Returns its name: what has none goes by the shard's."""
        name = error.name or f"{collection}/{shard}"
        self.found(name, error.message, doing, collection=collection, shard=shard)
        return name

    def whole(self, name: str) -> None:
        """Something is whole, as far as this process can tell: clears what it has reported of it, if anything."""
        if self._reported.pop(name, None) is not None:
            log.info("damage_cleared", object=name)
            self._send(name, None)

    def _send(self, name: str, damage: Damage | None) -> None:
        self._waiting[name] = damage
        if len(self._waiting) > NAMES_MAX:
            self._waiting.popitem(last=False)  # it is reported again when it is met again
        self._wake.set()

    async def run(self) -> None:
        """A loop, for ever: sends what there is to send. While Redis is away it keeps it."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                name, damage = self._waiting.popitem(last=False)
                self._sending = True
                try:
                    await self._send_one(name, damage)
                except (Unavailable, Backoff) as error:
                    log.warning("damage_not_reported", object=name, message=error.message)
                    self._waiting.setdefault(name, damage)
                    await self._clock.sleep(RETRY_S)
                finally:
                    self._sending = False

    async def _send_one(self, name: str, damage: Damage | None) -> None:
        if damage is None:
            await self._registry.clear([name])
        elif not await self._registry.report(damage):
            log.error("damage_registry_full", object=name, names_max=NAMES_MAX)
            self._reported.pop(name, None)
