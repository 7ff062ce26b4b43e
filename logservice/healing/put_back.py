"""Gives a Redis that came back with less what witnesses still hold, before anybody else is let in.

1. Wait for the statements of the witnesses that were there when Redis was last alive; for a bounded time.
2. Of each collection: put back, by position, the appends that they hold as a whole (`logservice.healing.plan`). The
   remembered requests come with them, so that a client that repeats its request is answered and not appended twice.
3. Name what was seen and is held by nobody.

Where Redis has everything, all of this is one exchange with each witness. Each step may be done again by another log
service: what is there already is not put back, and what was found is kept until the cluster is open, with the heads as
they were before anything was put back. A log service that slept meanwhile finds another epoch, and puts back nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa
from prometheus_client import Counter, Gauge

from logservice.healing.plan import LostAppend, LostRange, lost_appends, lost_ranges
from shared.catalog.witness_loop import ATTEND_S
from shared.cluster.placement import Layout
from shared.errors import Corrupt
from shared.log.batch import decode_batch, split_batch
from shared.log.heal import Heal, PutBackAppend, PutBackEntry
from shared.log.state import entry_id
from shared.log.statements import Statement, Statements
from shared.log.witness import Held, Seen
from shared.manifest.newest import newest_manifest
from shared.manifest.roots import RootStore
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

POLL_S: Final = 0.02

ANYBODY_S: Final = 0.5
"""Seconds to wait for a witness where Redis knows of none: it may have forgotten them."""

UNNOTICED_S: Final = ATTEND_S + ANYBODY_S
"""Seconds to wait for a witness where Redis knows of none and did not restart: they look whether it still has the
cluster once in ATTEND_S.
"""

PUT_BACK: Final = Counter(
    "polychrome_logservice_put_back_ops_total", "Operations that Redis had lost and witnesses gave back."
)
LOST_OPS: Final = Gauge(
    "polychrome_logservice_lost_ops", "Positions that the last restart of Redis lost for good, as far as was witnessed."
)

log = get_logger(__name__)


class Healed(msgspec.Struct, frozen=True):
    """The outcome of a healing: whether Redis had less than was witnessed, how many operations were put back, by
    collection, and the lost ones. `began` are the head and the epoch that each collection had when it began: what was
    put back since raises the head, and a log service that goes on must not judge by that what is lost. `gaps_end` says,
    of each collection to which not everything came back, where the last gap in its log ends: manifests may cover it.
    """

    went_back: bool
    put_back: dict[str, int]
    lost: list[LostRange]
    began: dict[str, tuple[int, int]] = {}
    gaps_end: dict[str, int] = {}

    @property
    def put_back_ops(self) -> int:
        """All operations that were put back."""
        return sum(self.put_back.values())


_HEALED: Final = msgspec.json.Decoder(Healed)


class _HealedCollection(NamedTuple):
    """The healing of one collection: how many operations were put back, which are lost, and where the last gap in its
    log ends; None when it has none.
    """

    ops: int
    lost: list[LostRange]
    gaps_end: int | None


class Testimony(NamedTuple):
    """The entries that witnesses hold, and the appends that they have seen, by collection."""

    held: Mapping[str, list[Held]]
    seen: Mapping[str, list[Seen]]


NOTHING: Final = Healed(went_back=False, put_back={}, lost=[])

NO_TESTIMONY: Final = Testimony({}, {})


class Healing:
    """Heals a server that is not open. `wait_s` is the longest time for which it waits for witnesses. Everything raises
    Unavailable.
    """

    def __init__(
        self, rendezvous: Statements, heal_log: Heal, objects: ObjectStore, clock: Clock, wait_s: float
    ) -> None:
        self._rendezvous = rendezvous
        self._heal_log = heal_log
        self._objects = objects
        self._roots = RootStore(objects)
        self._clock = clock
        self._wait_s = wait_s

    async def hear(self, run: str, *, ran_on: bool = False) -> Testimony:
        """All that witnesses say about this run of the server. To be heard before anything is restored in it: witnesses
        give back what is beyond the heads that they find. `ran_on`: it may have lost its data while it ran, which they
        notice later than a restart.
        """
        statements = await self._heard(run, UNNOTICED_S if ran_on else ANYBODY_S)
        held, seen = defaultdict[str, list[Held]](list), defaultdict[str, list[Seen]](list)
        for witness, statement in statements.items():
            for each in statement.seen:
                seen[each.collection].append(each)
            if statement.entries:
                for entry in await self._rendezvous.given(run, witness):
                    held[entry.collection].append(entry)
        return Testimony(held, seen)

    async def beyond_heads(self, run: str, testimony: Testimony, known: Collection[str]) -> Healed:
        """Heals the collections that Redis has. `known` are those that the bucket's catalog has: one that it has and
        Redis does not is restored first, and then healed by `beyond`.
        """
        # Epochs first: were another log service to open the cluster in between, its heads would be beyond everything.
        epochs = await self._heal_log.epochs(testimony.seen)
        heads = await self._rendezvous.heads(testimony.seen)
        there = {name: (head, epochs[name]) for name, head in heads.items() if head}
        earlier = await self._earlier(run)
        if there:
            same = {name for name, (_, epoch) in earlier.began.items() if name in there and there[name][1] == epoch}
            there |= {name: earlier.began[name] for name in same}
            healing = msgspec.structs.replace(earlier, went_back=True, began=there)
            await self._rendezvous.keep_findings(run, msgspec.json.encode(healing))
        positions = {name: head for name, (head, _) in there.items()}
        return await self.beyond(run, testimony, positions, epochs, waiting=known, restored=False)

    async def _earlier(self, run: str) -> Healed:
        """The findings of a log service that died in the middle."""
        before = await self._rendezvous.findings(run)
        return _HEALED.decode(before) if before else NOTHING

    async def beyond(
        self,
        run: str,
        testimony: Testimony,
        positions: Mapping[str, int],
        epochs: Mapping[str, int],
        *,
        waiting: Collection[str] = (),
        restored: bool = True,
    ) -> Healed:
        """Puts back what witnesses hold of each of these collections at this position or later, which the log is
        restored up to, as long as it is of its epoch in `epochs`. `waiting` are collections that are restored later: if
        any was witnessed, Redis has gone back. `restored`: they were restored from the bucket, and nothing in it counts
        but what they were restored to. Returns everything that was found about this run.
        """
        earlier = await self._earlier(run)
        found = {
            name: await self._heal(
                name, positions[name], epochs[name], testimony.held.get(name, []), seen, restored=restored
            )
            for name, seen in testimony.seen.items()
            if name in positions
        }
        lost = [each for one in found.values() for each in one.lost if each not in earlier.lost]
        gaps = {name: one.gaps_end for name, one in found.items() if one.gaps_end is not None}
        went_back = earlier.went_back or bool(found) or not testimony.seen.keys().isdisjoint(waiting)
        # What was put back into a log that the restoration replaced does not count.
        before = {} if restored else earlier.put_back
        ops = {name: max(before.get(name, 0), found[name].ops) for name in found}
        healed = Healed(
            went_back,
            {**earlier.put_back, **ops},
            [*earlier.lost, *lost],
            earlier.began,
            {**earlier.gaps_end, **gaps},
        )
        if found:
            await self._rendezvous.keep_findings(run, msgspec.json.encode(healed))
            _say(lost)
            log.warning("redis_had_less", put_back_ops=healed.put_back_ops, lost_ranges=len(healed.lost))
        LOST_OPS.set(sum(each.end - each.first for each in healed.lost))
        return healed

    async def finished(self, run: str) -> None:
        """Forgets what witnesses said about this run: the cluster is open."""
        await self._rendezvous.clear(run, await self._rendezvous.made(run))

    async def _heard(self, run: str, anybody_s: float) -> dict[str, Statement]:
        """The statements of all witnesses that are expected, or of those that spoke in time."""
        began_s, expected = self._clock.monotonic(), await self._rendezvous.expected()
        while True:
            expected &= await self._rendezvous.expected()  # without those that say they have nothing to say
            statements = await self._rendezvous.made(run)
            silent = expected - statements.keys()
            wait_s = self._wait_s if expected else min(self._wait_s, anybody_s)
            if (expected and not silent) or self._clock.monotonic() - began_s >= wait_s:
                break
            await self._clock.sleep(POLL_S)
        if silent:
            log.warning("witnesses_silent", witnesses=sorted(silent), waited_s=self._wait_s)
        return statements

    async def _heal(
        self, collection: str, head: int, epoch: int, held: Sequence[Held], seen: Sequence[Seen], *, restored: bool
    ) -> _HealedCollection:
        """Puts back what can be."""
        layout = await self._heal_log.layout(collection)
        there: list[tuple[int, int]] = []
        if layout is not None:
            appends = lost_appends(head, held)
            if appends:
                await self._heal_log.fill(collection, layout)
            there = [
                (each.first, each.end) for each in appends if await self._put_back(collection, epoch, layout, each)
            ]
        ops = sum(end - first for first, end in there)
        PUT_BACK.inc(ops)
        lost = lost_ranges(collection, head, seen, there, 0)
        gaps_end = lost[-1].end if lost else None
        if gaps_end is not None and layout is not None and not restored:
            lost = lost_ranges(collection, head, seen, there, await self._covered(collection, layout, gaps_end))
        return _HealedCollection(ops, lost, gaps_end)

    async def _covered(self, collection: str, layout: Layout, gaps_end: int) -> int:
        """The position below which the restoration takes everything from manifests, so that a gap there is no loss
        (`logservice.restoring.choice.begins_of_log`).
        """
        newest = [(await newest_manifest(self._objects, collection, shard)).found for shard in layout.numbers]
        covers = [found[1].covers if found else 0 for found in newest]
        if len(set(covers)) == 1 or gaps_end <= min(covers):
            return min(covers)
        with suppress(Corrupt):  # a damaged root is reported by the restoration, and covers nothing here
            root = await self._roots.newest(collection)
            return root.position if root and not root.with_log else 0
        return 0

    async def _put_back(self, collection: str, epoch: int, layout: Layout, append: LostAppend) -> bool:
        """Whether the log has the append now. An entry that does not decode is not put back."""
        try:
            batches = [decode_batch(entry.payload) for entry in append.entries]
        except Corrupt as error:
            log.error("given_entry_corrupt", collection=collection, first=append.first, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
            return False
        vectors = [batch.schema.field("embedding").type for batch in batches if "embedding" in batch.schema.names]
        return await self._heal_log.put_back(
            PutBackAppend(
                collection_id=collection,
                first=append.first,
                end=append.end,
                time_ms=append.time_ms,
                request_id=append.request_id,
                epoch=epoch,
                dimension=vectors[0].list_size if vectors else None,
                pairs=append.pairs,
                entries=_entries(append, batches, layout),
            )
        )


def _say(lost: Sequence[LostRange]) -> None:
    for each in lost:
        if each.acknowledged:
            log.error("acknowledged_operations_lost", collection=each.collection, first=each.first, end=each.end)
        else:
            log.warning("operations_lost", collection=each.collection, first=each.first, end=each.end)


def _entries(append: LostAppend, batches: Sequence[pa.RecordBatch], layout: Layout) -> list[PutBackEntry]:
    """The entries to put back: those that there were, or, when the collection has other shards than then, their
    operations divided among the present ones.
    """
    if all(entry.shard in layout for entry in append.entries):
        return [
            PutBackEntry(entry.shard, entry.id, entry.count, entry.checksum, entry.payload) for entry in append.entries
        ]
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    [joined] = pa.concat_tables(tables, promote_options="default").sort_by("offset").combine_chunks().to_batches()
    return [
        PutBackEntry(shard, entry_id(append.first + entry.offset), entry.count, entry.checksum, entry.payload)
        for shard, entries in split_batch(joined, layout).items()
        for entry in entries
    ]
