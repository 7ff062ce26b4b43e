"""The audit log of a frontend: events of requests, sealed into the bucket.

1. `note` takes an event into memory, and never waits: for a request the log costs the making of a small record.
2. Every `seal_s` seconds, or when a part is full, what there is is sealed: lines, each with the hash of the one before
   (`shared.tenancy.audit_chain`), made in a thread. The part is created in the bucket if it is not there already.
3. While the bucket is away, the part that could not be written is tried again as it is: whether it was written after
   all cannot be told. Events wait meanwhile, `WAITING_MAX` of them. Others go into the process's log instead, are
   counted, and the audit log says how many they were, and since when, in the line of a gap.
4. When the process stops, the rest is sealed, and the last line says that nothing follows.

A process that is killed takes the events of the last `seal_s` seconds with it, and those that wait for the bucket.

Refusals are cheap to cause. Of one sender (outcome, principal and network) `REFUSALS_MAX` a period have events of their
own, of all senders `ALL_REFUSALS_MAX`; those beyond share one for each sender, which says how many they were.

Every `HEARTBEAT_S` a part is written even if nothing has happened: a chain that is not heard of for longer and was not
closed was cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections import deque
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from prometheus_client import Counter, Gauge

from frontend.access.failures import network_of
from frontend.audit.events import actor_of, event_of, folded_event, is_wanted, outcome_of
from shared.errors import PolychromeError
from shared.objects.keys import AuditPart
from shared.process.clock import Clock
from shared.process.telemetry import get_logger, request_id
from shared.tenancy.audit import (
    Actor,
    ActorKind,
    AuditOutcome,
    Entry,
    Event,
    Gap,
    chain_name,
    day_of,
    moment_of,
    shown_text,
)
from shared.tenancy.audit_chain import NOTHING, Sealed, seal

if TYPE_CHECKING:
    from frontend.http.request import Request
    from shared.objects.port import ObjectStore

SEAL_S: Final = 10.0
"""Longest time between an event and its part, in seconds, unless a setting says otherwise."""
SEAL_ENTRIES: Final = 2000
"""Entries that are sealed at once: about a MiB of them."""
WAITING_MAX: Final = 20_000
"""Most entries that wait for the bucket."""
REFUSALS_S: Final = 10.0
"""Period in which refusals are counted, in seconds."""
REFUSALS_MAX: Final = 100
"""Refusals of one sender in a period that have events of their own."""
ALL_REFUSALS_MAX: Final = 2000
"""Refusals of all senders in a period that have events of their own."""
SENDERS_MAX: Final = 1000
"""Senders of refusals that are told apart in a period."""
RETRY_S: Final = 1.0
HEARTBEAT_S: Final = 24 * 3600.0
CLOSE_S: Final = 4.0
"""Longest time for sealing the rest when the process stops, in seconds."""

EVENTS: Final = Counter("polychrome_frontend_audit_events_total", "Events for the audit log, by outcome.", ["outcome"])
LOST: Final = Counter(
    "polychrome_frontend_audit_lost_total",
    "Events that are not in the audit log, because the bucket took none for long.",
)
WAITING: Final = Gauge("polychrome_frontend_audit_waiting", "Entries that are not in the bucket yet.")
FAILURES: Final = Counter("polychrome_frontend_audit_failures_total", "Parts of the audit log that were not taken.")

log = get_logger(__name__)
_ALLOWED: Final = AuditOutcome.ALLOWED

_Sender = tuple[AuditOutcome, Actor | None, str]
"""The outcome, the sender and its network, by which refusals are counted; None: of all others together."""


class AuditLog:
    """The audit log of one life of the process that `process` names. `mode` is `control` or `all`; `authenticates`:
    requests need a credential.
    """

    def __init__(
        self,
        objects: ObjectStore,
        clock: Clock,
        process: str,
        mode: str,
        *,
        authenticates: bool,
        seal_s: float = SEAL_S,
    ) -> None:
        self._seal_s = seal_s
        self._objects = objects
        self._clock = clock
        self._process = process
        self._mode = mode
        self._authenticates = authenticates
        self._waiting: deque[Entry] = deque()
        self._lost: Gap | None = None
        self._refusals: dict[_Sender, _Refusals] = {}
        self._refusals_alone = 0
        self._folded_s = clock.monotonic()
        self._full = asyncio.Event()
        self._writing = asyncio.Lock()
        self._begin_chain()
        WAITING.set_function(lambda: len(self._waiting))
        actor = Actor(ActorKind.PROCESS, shown_text(process))
        self._add(Event(time=moment_of(clock.now()), actor=actor, route=f"start with audit {mode}", outcome=_ALLOWED))

    def _begin_chain(self) -> None:
        self._chain = chain_name(self._process, self._clock.now(), secrets.token_hex(4))
        self._number, self._prev, self._day = 0, NOTHING, ""
        self._closed = False
        self._unwritten: _Unwritten | None = None
        self._written_s = self._clock.monotonic()

    # What requests call

    def note(self, request: Request, status: int) -> None:
        """Takes down a request that was answered with this status (0: not at all), if it is to leave an event."""
        outcome = outcome_of(request, status, authenticates=self._authenticates)
        if not is_wanted(request.access, outcome, self._mode):
            return
        _counted(outcome).inc()
        actor = actor_of(request, authenticates=self._authenticates)
        refusals = None if outcome is _ALLOWED else self._refusals_of(outcome, actor, request.remote)
        alone = refusals is None or self._counts_alone(refusals)
        if not alone and refusals is not None and refusals.like is not None:
            return
        event = event_of(request, actor, status, outcome, self._clock.now(), request_id.get())
        if refusals is not None:
            refusals.like = event
        if alone:
            self._add(event)

    def _counts_alone(self, refusals: _Refusals) -> bool:
        """Counts a refusal; whether it has an event of its own."""
        refusals.count += 1
        alone = refusals.alone < REFUSALS_MAX and self._refusals_alone < ALL_REFUSALS_MAX
        refusals.alone += alone
        self._refusals_alone += alone
        return alone

    def _refusals_of(self, outcome: AuditOutcome, actor: Actor, remote: str | None) -> _Refusals:
        sender: _Sender = (outcome, actor, network_of(remote))
        if sender not in self._refusals and len(self._refusals) >= SENDERS_MAX:
            sender = (outcome, None, "")
        return self._refusals.setdefault(sender, _Refusals())

    def _fold(self) -> None:
        """Ends a period: of senders with too many refusals, says how many more there were."""
        self._folded_s = self._clock.monotonic()
        self._refusals_alone = 0
        folded, self._refusals = self._refusals, {}
        for (_, actor, _), refusals in folded.items():
            more = refusals.count - refusals.alone
            if more and refusals.like is not None:
                self._add(folded_event(refusals.like, self._clock.now(), more, mixed=actor is None))

    def _add(self, entry: Event) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._lose(entry)
            return
        self._waiting.append(entry)
        if len(self._waiting) >= SEAL_ENTRIES:
            self._full.set()

    def _lose(self, event: Event) -> None:
        LOST.inc(event.count)
        lost, since = (0, event.time) if self._lost is None else (self._lost.lost, self._lost.since)
        self._lost = Gap(time=event.time, lost=lost + event.count, since=since)
        log.warning("audit_event_lost", audit=msgspec.to_builtins(event))

    # Sealing

    async def run(self) -> None:
        """A loop, for ever: seals what there is."""
        while True:
            with contextlib.suppress(TimeoutError):  # the period is over
                async with asyncio.timeout(self._seal_s):
                    await self._full.wait()
            if not await self.flush():
                await self._clock.sleep(RETRY_S)

    async def close(self) -> None:
        """Seals the rest, and says that nothing follows. What is not taken within `CLOSE_S` is lost, which is said in
        the process's log.
        """
        with contextlib.suppress(TimeoutError):  # what is left then is said below
            async with asyncio.timeout(CLOSE_S):
                if await self.flush(closing=True):
                    return
        left = len(self._waiting) + (len(self._unwritten.entries) if self._unwritten is not None else 0)
        LOST.inc(left)
        log.error("audit_not_closed", entries=left, chain=self._chain)

    async def flush(self, *, closing: bool = False) -> bool:
        """Seals all that is there, and writes it; whether the bucket has taken it all."""
        async with self._writing:
            self._full.clear()
            if closing or self._clock.monotonic() - self._folded_s >= REFUSALS_S:
                self._fold()
            while self._unwritten is not None or self._waiting or self._is_due(closing=closing):
                if self._unwritten is None:
                    await self._seal(closing=closing)
                if not await self._write():
                    return False
            return True

    def _is_due(self, *, closing: bool) -> bool:
        """Whether a part is due although there is nothing to be said."""
        if closing:
            return not self._closed
        return self._clock.monotonic() - self._written_s >= HEARTBEAT_S

    async def _seal(self, *, closing: bool) -> None:
        """Makes the next part of what waits, of one day."""
        if self._closed:
            self._begin_chain()
        now = moment_of(self._clock.now())
        self._day = max(self._day, day_of(self._waiting[0].time if self._waiting else now))
        entries = list(takewhile(lambda each: day_of(each.time) <= self._day, islice(self._waiting, SEAL_ENTRIES)))
        last = closing and len(entries) == len(self._waiting) and self._lost is None
        place = AuditPart(self._day, self._chain, self._number)
        sealed = await asyncio.to_thread(seal, place, self._prev, entries, closed=last)
        for _ in range(sealed.entries):
            self._waiting.popleft()
        if self._lost is not None:  # it came behind those that waited then
            self._waiting.append(self._lost)
            self._lost = None
        self._unwritten = _Unwritten(sealed, entries[: sealed.entries], last and sealed.entries == len(entries))

    async def _write(self) -> bool:
        """Writes the part that was made; whether the bucket has it."""
        assert self._unwritten is not None
        sealed, entries, closed = self._unwritten
        key = sealed.place.key
        try:
            created = await self._objects.create(key, sealed.data)
            # A part whose answer was lost is found there, as it is, when it is tried again.
            mine = created or await self._objects.get(key) == sealed.data
        except PolychromeError as error:
            FAILURES.inc()
            log.warning("audit_part_not_taken", part=key, entries=len(self._waiting), message=error.message)
            return False
        if not mine:
            log.error("audit_part_in_the_way", part=key)
            self._waiting.extendleft(reversed(entries))
            self._begin_chain()
            return True
        self._unwritten, self._prev, self._number, self._closed = None, sealed.sha256, self._number + 1, closed
        self._written_s = self._clock.monotonic()
        log.info("audit_part_sealed", part=key, entries=sealed.entries, sha256=sealed.sha256)
        return True


@dataclass(slots=True)
class _Refusals:
    """The refusals of a sender in a period: `count` of them, of which `alone` have events of their own, and any of
    them, `like`.
    """

    count: int = 0
    alone: int = 0
    like: Event | None = None


class _Unwritten(NamedTuple):
    """A part that was made and that the bucket may not have, with what is in it; `closed`: nothing follows it."""

    sealed: Sealed
    entries: list[Entry]
    closed: bool


@functools.cache
def _counted(outcome: AuditOutcome) -> Counter:
    """Looking a metric up by its labels costs more than counting."""
    return EVENTS.labels(outcome)
