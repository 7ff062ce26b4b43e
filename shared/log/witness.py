"""A memory of the log as a process has seen it lately, to be given back should Redis come back with less.

```text
appends that were acknowledged or read     [ forgotten ][ their positions alone ][ whole, within the budget ] now
```

A frontend holds the entries of its own appends, a query worker those that it read. Of what no longer fits into the
budget the positions are kept, so that a loss can be named. Both are let go of after `seconds`: Redis loses what was
written last, and what is older was compacted long ago. For one event loop.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
import orjson

from shared.log.append import AppendRequest
from shared.log.state import Entry, entry_id
from shared.process.clock import Clock

SEEN_MAX: Final = 50_000
"""Most appends whose positions are kept."""

OVERHEAD_BYTES: Final = 600
"""About how much memory an entry takes beside its payload."""


class Held(msgspec.Struct, frozen=True, array_like=True):
    """An entry that can be put back. [first, end) are the positions of its append, `last` says whether it was the
    append's last one in its shard's stream; `pairs` are the (metadata key, value type) pairs that the append brought
    along, as they are kept, where that is known. `epoch` is that of the cluster when it was in the log. `conditional`:
    the append may rest on what was in the log before it (a transaction, a function's output).
    """

    collection: str
    shard: int
    id: str
    first: int
    end: int
    last: bool
    count: int
    time_ms: int
    request_id: str
    checksum: str
    payload: bytes
    pairs: tuple[str, ...] = ()
    epoch: int = 0
    conditional: bool = True


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """The positions [first, end) of an append that was in the log. `acknowledged`: this process had it acknowledged."""

    collection: str
    first: int
    end: int
    acknowledged: bool


class Beyond(NamedTuple):
    """The knowledge of a witness of the log beyond some heads."""

    held: list[Held]
    seen: list[Seen]


class Witness:
    """Holds entries of up to `bytes_max` bytes, for up to `seconds`."""

    def __init__(self, clock: Clock, bytes_max: int, seconds: float) -> None:
        self._clock = clock
        self._bytes_max = bytes_max
        self._seconds = seconds
        self._bytes = 0
        self._held: OrderedDict[tuple[str, int, str], tuple[Held, float]] = OrderedDict()
        self._seen: deque[tuple[Seen, float]] = deque()

    def appended(self, request: AppendRequest, first: int, end: int, time_ms: int | None, epoch: int = 0) -> None:
        """An append was acknowledged, at the positions [first, end), in this epoch. `time_ms` is when it was made, None
        when the server does not say any more.
        """
        when = round(1000 * self._clock.now()) if time_ms is None else time_ms
        conditional = request.condition is not None or request.provenance is not None
        pairs = tuple(orjson.dumps(pair).decode() for pair in request.new_keys)
        for shard, entries in request.batches.items():
            for number, entry in enumerate(entries, start=1):
                self._hold(
                    Held(
                        request.collection_id, shard, entry_id(first + entry.offset), first, end,
                        number == len(entries), entry.count, when, request.request_id, entry.checksum, entry.payload,
                        pairs, epoch, conditional,
                    )
                )  # fmt: skip
        self._note(Seen(request.collection_id, first, end, acknowledged=True))

    def read(self, collection_id: str, shard: int, entries: Iterable[Entry], epoch: int = 0) -> None:
        """Entries were read, and verified, in this epoch. Those of long ago are passed over, and so are substitutes and
        entries of version 0.1.0.
        """
        oldest_ms = 1000 * (self._clock.now() - self._seconds)
        for entry in entries:
            if entry.chain and entry.count and entry.time_ms >= oldest_ms:
                self._hold(
                    Held(
                        collection_id, shard, entry.id, entry.first, entry.end, entry.last, entry.count, entry.time_ms,
                        entry.request_id, entry.checksum, entry.payload, epoch=epoch,
                    )
                )  # fmt: skip
                self._note(Seen(collection_id, entry.first, entry.end, acknowledged=False))

    @property
    def collections(self) -> set[str]:
        """The collections of which something is known."""
        self._forget()
        return {seen.collection for seen, _ in self._seen}

    def beyond(self, heads: Mapping[str, int]) -> Beyond:
        """The entries and appends of these collections at their heads or later."""
        self._forget()
        return Beyond(
            [held for held, _ in self._held.values() if held.first >= heads.get(held.collection, held.end)],
            [seen for seen, _ in self._seen if seen.first >= heads.get(seen.collection, seen.end)],
        )

    def of_earlier_epochs(self, epoch: int) -> list[Held]:
        """The entries that were in the log in an epoch before this one."""
        return [held for held, _ in self._held.values() if held.epoch < epoch]

    def carry_over(self, held: Iterable[Held], there: Iterable[Held], epoch: int) -> None:
        """The cluster was restored, and is in this epoch. Of the entries `held`, of earlier epochs, the log has those
        that are `there`; the others were given up, or are in manifests.
        """
        kept = {(each.collection, each.shard, each.id) for each in there}
        for each in held:
            key = each.collection, each.shard, each.id
            present, when_s = self._held.get(key, (None, 0.0))
            if present is not each:
                continue
            if key in kept:
                self._held[key] = msgspec.structs.replace(each, epoch=epoch), when_s
            else:
                del self._held[key]
                self._bytes -= _bytes_of(each)

    def _hold(self, held: Held) -> None:
        key = (held.collection, held.shard, held.id)
        if (before := self._held.pop(key, None)) is not None:
            self._bytes -= _bytes_of(before[0])
        self._held[key] = held, self._clock.monotonic()
        self._bytes += _bytes_of(held)
        while self._bytes > self._bytes_max:
            self._drop()
        self._forget()

    def _drop(self) -> None:
        _, (held, _) = self._held.popitem(last=False)
        self._bytes -= _bytes_of(held)

    def _note(self, seen: Seen) -> None:
        if not self._seen or self._seen[-1][0] != seen:
            self._seen.append((seen, self._clock.monotonic()))
        if len(self._seen) > SEEN_MAX:
            self._seen.popleft()

    def _forget(self) -> None:
        oldest_s = self._clock.monotonic() - self._seconds
        while self._held and next(iter(self._held.values()))[1] < oldest_s:
            self._drop()
        while self._seen and self._seen[0][1] < oldest_s:
            self._seen.popleft()


def _bytes_of(held: Held) -> int:
    return len(held.payload) + OVERHEAD_BYTES
