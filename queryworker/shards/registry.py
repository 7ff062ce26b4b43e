"""The shards that this worker has in memory, and which of them to let go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from prometheus_client import Gauge

from queryworker.shards.shard import ServedShard
from queryworker.view.read_view import ReadView
from shared.errors import Gone, StaleGeneration
from shared.process import telemetry
from shared.process.clock import Clock
from shared.records.model import ReadLevel
from shared.rpc import messages

SHARDS: Final = Gauge("polychrome_queryworker_shards", "Shards in memory.")
SHARD_BYTES: Final = Gauge("polychrome_queryworker_shard_bytes", "What they hold, mapped files included.")
TAIL_SLOTS: Final = Gauge("polychrome_queryworker_tail_slots", "Record versions in the tails of all shards.")

JANITOR_S: Final = 5.0

Key = tuple[str, int]

log = telemetry.get_logger(__name__)


class Loaded(NamedTuple):
    """What eviction is decided on."""

    key: Key
    bytes: int
    idle_s: float


def evictions(loaded: Sequence[Loaded], bytes_max: int, idle_max_s: float) -> list[Key]:
    """Shards to drop: all that are idle for too long, then the longest idle while the rest is over the budget. The
    one used last always stays: a shard larger than the budget could not be served at all otherwise. Pure.
    """
    dropped: list[Key] = []
    total = sum(shard.bytes for shard in loaded)
    by_idleness = sorted(loaded, key=lambda shard: shard.idle_s, reverse=True)
    for number, shard in enumerate(by_idleness):
        last = number == len(by_idleness) - 1
        if shard.idle_s > idle_max_s or (total > bytes_max and not last):
            dropped.append(shard.key)
            total -= shard.bytes
    return dropped


class Shards:
    """Opens shards when they are asked for."""

    def __init__(
        self, new_shard: Callable[[str, int], ServedShard], clock: Clock, bytes_max: int, idle_max_s: float
    ) -> None:
        self._new_shard = new_shard
        self._clock = clock
        self._bytes_max = bytes_max
        self._idle_max_s = idle_max_s
        self._shards: dict[Key, ServedShard] = {}

    async def read_view(self, asked: messages.Shard) -> ReadView:
        """The shard as the request wants to see it. Raises Gone, StaleGeneration, StaleRead, Corrupt,
        Unavailable.
        """
        key = (asked.collection, asked.shard)
        shard = self._shards.get(key)
        if shard is None:
            shard = self._shards[key] = self._new_shard(*key)
        try:
            return await shard.read_view(asked.as_of, fresh=asked.read_level is not ReadLevel.INDEX_ONLY)
        except (Gone, StaleGeneration):
            if self._shards.get(key) is shard:
                del self._shards[key]
            raise

    def likely(self, asked: messages.Shard) -> ReadView | None:
        """What `snapshot` will probably answer, very object; None where nothing can be said."""
        shard = self._shards.get((asked.collection, asked.shard))
        newest = asked.as_of is None and asked.read_level is not ReadLevel.INDEX_ONLY
        return shard.likely() if shard is not None and newest else None

    def tidy(self) -> None:
        """Let go of what need not be held any longer; see `evictions`."""
        now = self._clock.monotonic()
        loaded: list[Loaded] = []
        for key, shard in self._shards.items():
            shard.views.drop_retired()
            loaded.append(Loaded(key, shard.views.bytes, now - shard.used_s))
        for key in evictions(loaded, self._bytes_max, self._idle_max_s):
            # Only forgotten, not closed: whoever still waits for it gets an answer, and then it goes.
            dropped = self._shards.pop(key)
            log.info("shard dropped from memory", collection=key[0], shard=key[1], bytes=dropped.views.bytes)
        SHARDS.set(len(self._shards))
        SHARD_BYTES.set(sum(shard.views.bytes for shard in self._shards.values()))
        TAIL_SLOTS.set(sum(shard.tail_slots for shard in self._shards.values()))

    async def close(self) -> None:
        for shard in self._shards.values():
            await shard.close()
        self._shards.clear()
