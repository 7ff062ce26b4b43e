"""Carries out the rounds of collections with several shards: sets cuts, and writes roots when all shards are there."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import Counter, Gauge

from logservice.scheduling.cuts import RoundMemory, Step, next_step
from shared.cluster.placement import Layout
from shared.errors import Corrupt
from shared.log.cuts import Cuts, CutState
from shared.manifest.roots import RootStore, make_root
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.concurrency import map_concurrently
from shared.process.telemetry import get_logger

log = get_logger(__name__)

ROOTS: Final = Counter("polychrome_logservice_roots_total", "Roots that were written: states to which can be restored.")
HELD_UP: Final = Gauge(
    "polychrome_logservice_held_up_collections",
    "Collections without new roots, because a shard of theirs cannot be compacted.",
)

AT_ONCE: Final = 16
"""Collections whose rounds are taken further at a time."""

STEPS_MAX: Final = 3
"""Steps of one round that are taken at a time: a root, the next cut, and the look at who is behind it."""


class Rounds:
    """The rounds of one leader. Everything raises Unavailable."""

    def __init__(self, cuts: Cuts, objects: ObjectStore, clock: Clock) -> None:
        self._cuts = cuts
        self._roots = RootStore(objects)
        self._clock = clock
        self._written_by = f"logservice {uuid.uuid4().hex}"
        self._open: dict[str, tuple[Layout, RoundMemory]] = {}

    def watch(self, collection_id: str, layout: Layout) -> None:
        """Looks after the collection until its round has ended, and nothing is left to compact."""
        if layout.count > 1:
            _, memory = self._open.get(collection_id, (layout, RoundMemory()))
            self._open[collection_id] = (layout, memory)

    async def step(self, due: Mapping[str, float]) -> list[tuple[str, int, float]]:
        """Takes the rounds of all watched collections as far as they go now. `due`: collections that have a shard
        which is due for compaction, with the highest urgency among their shards. Returns the shards to be compacted:
        id of the collection, number and urgency.
        """
        states = await self._cuts.read({collection_id: layout for collection_id, (layout, _) in self._open.items()})
        for collection_id in self._open.keys() - states.keys():
            del self._open[collection_id]  # deleted, or switched to other shards: those are watched by themselves

        async def advance(state: CutState) -> list[tuple[str, int, float]]:
            urgency = due.get(state.collection_id)
            behind = await self._advance(state, urgency is not None)
            return [(state.collection_id, number, max(urgency or 0.0, 1.0)) for number in behind]

        wanted = await map_concurrently(advance, states.values(), at_once=AT_ONCE)
        HELD_UP.set(sum(bool(memory.given_up) for _, memory in self._open.values()))
        return [shard for shards in wanted for shard in shards]

    async def _advance(self, state: CutState, due: bool) -> Iterable[int]:
        """Takes one collection's round further; the shards that are to be compacted now."""
        layout, memory = self._open[state.collection_id]
        for _ in range(STEPS_MAX):
            step, after = next_step(state, memory, due, self._clock.monotonic())
            self._report_given_up(state, memory, after)
            memory = after
            self._open[state.collection_id] = (layout, memory)
            if step in (Step.WAIT, Step.REST):
                break
            done = await (self._begin(state) if step is Step.BEGIN else self._write_root(state))
            renewed = (await self._cuts.read({state.collection_id: layout})).get(state.collection_id)
            if not done or renewed is None:
                return []
            state = renewed
        if step is Step.REST and not any(shard.uncompacted for shard in state.shards):
            del self._open[state.collection_id]
        return [shard.number for shard in state.shards if shard.behind]

    async def _begin(self, state: CutState) -> bool:
        if state.cut is not None and any(shard.covers > state.cut for shard in state.shards):
            log.warning("cut_overtaken", collection=state.collection_id, cut=state.cut)
        if state.torn:
            log.error("cut_lost", collection=state.collection_id, cut=state.cut)
        return await self._cuts.begin(state) is not None

    async def _write_root(self, state: CutState) -> bool:
        """First the object, then the note in Redis: a log service that dies in between is followed by one that finds
        the object there.
        """
        assert state.cut is not None
        root = make_root(
            state.collection_id,
            state.epoch,
            state.cut,
            state.layout,
            state.pointers,
            self._written_by,
            self._clock.now(),
        )
        try:
            await self._roots.create(root)
        except Corrupt as error:
            # It cannot be told what a root at this position stands for: the next one will be at another.
            log.exception("root_refused", collection=state.collection_id, message=error.message)
            return await self._begin(state)
        ROOTS.inc()
        log.debug("root_written", collection=state.collection_id, position=state.cut)
        return await self._cuts.note_root(state)

    def _report_given_up(self, state: CutState, before: RoundMemory, after: RoundMemory) -> None:
        new = sorted(after.given_up.keys() - before.given_up.keys())
        if new:
            log.error("round_held_up", collection=state.collection_id, cut=state.cut, shards=new)
