"""An append: what a writer asks of the log, and its encoding as the keys and arguments of append.lua."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from shared import limits
from shared.log.batch import EncodedEntry
from shared.log.condition import Condition
from shared.log.outputs import ProvenanceChange
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, packed


@dataclass(frozen=True, slots=True)
class CollectionLimits:
    """The most that one collection may have: operations and payload bytes in its streams, and pairs of a metadata key
    and a type of value.
    """

    backlog_ops: int = limits.BACKLOG_OPS_MAX
    backlog_bytes: int = limits.BACKLOG_BYTES_MAX
    pairs: int = limits.METADATA_PAIRS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendRequest:
    """Operations that are appended to one collection's log together: all of them or none."""

    collection_id: str

    request_id: str
    """The name under which the append may be repeated. It must be new for every append: one that was used on this
    collection in the last `limits.REQUEST_ID_TTL_S` seconds is answered with that append's positions, and appends
    nothing.
    """

    batches: Mapping[int, Sequence[EncodedEntry]]
    """By shard, the log entries to add to its stream. The offsets of all operations are 0 to `count` - 1."""

    dimension: int | None
    """Width of the embeddings in the batches; None when there are none. The first one fixes the collection's."""

    generation: int | None
    """Generation of the catalog row that the batches were made by; None: whatever the row says by now."""

    new_keys: Sequence[tuple[str, str]] = ()
    """(metadata key, value type) pairs that the operations bring and the catalog row did not have."""

    replicas: int = 0
    """How many replicas of the server shall have the append before it returns; 0: it does not wait for any."""

    condition: Condition | None = None
    """Appends only if this holds."""

    provenance: ProvenanceChange | None = None
    """For a function's output: the append takes place only if the provenance of its content is `before`, and makes it
    `after`, in the epoch in which the run began.
    """

    @property
    def epoch(self) -> int | None:
        """The epoch in which the work on the append began, when it must not be appended in a later one; None: a
        restoration of Redis before the append is first sent does not matter.
        """
        return None if self.provenance is None else self.provenance.epoch

    deletes_only: bool = False
    """Whether all operations are deletes: they are taken when there is no room for others."""

    def __post_init__(self) -> None:
        if not self.count:
            raise ValueError("an append has at least one operation")
        if len(self.new_keys) > limits.NEW_PAIRS_MAX:
            raise ValueError(f"an append brings at most {limits.NEW_PAIRS_MAX} pairs")

    @property
    def count(self) -> int:
        """Operations in all batches."""
        return sum([entry.count for batch in self.batches.values() for entry in batch])

    @property
    def size(self) -> int:
        """Payload bytes of all batches."""
        return sum([len(entry.payload) for batch in self.batches.values() for entry in batch])


@dataclass(frozen=True, slots=True)
class Appended:
    """Positions [first, head) were handed out to the append; a row's is `first` plus its offset in the batch.
    `replicas` is how many replicas had it in time, of those that it should wait for.
    """

    first: int
    head: int
    replicas: int = 0


def keys_of(request: AppendRequest, names: Keys) -> list[str]:
    """KEYS, as append.lua's header says."""
    collection_id = request.collection_id
    read = request.condition.reads if request.condition is not None else ()
    return [
        names.state(collection_id),
        names.request(collection_id, request.request_id),
        names.metadata_keys(collection_id),
        *(names.log(collection_id, shard) for shard in request.batches),
        *(names.log(collection_id, shard) for shard in read),
    ]


def arguments_of(request: AppendRequest, most: CollectionLimits, epoch: int | None) -> list[Argument]:
    """ARGV, as append.lua's header says."""
    provenance = request.provenance
    args: list[Argument] = [
        limits.REQUEST_ID_TTL_S,
        "" if request.dimension is None else request.dimension,
        "" if request.generation is None else request.generation,
        most.backlog_ops,
        most.backlog_bytes,
        request.count,
        packed([orjson.dumps(pair).decode() for pair in request.new_keys]) if request.new_keys else "",
        packed(request.condition.encode()) if request.condition is not None else "",
        "" if provenance is None else provenance.before,
        "" if provenance is None else provenance.after,
        request.request_id,
        "" if epoch is None else epoch,
        most.pairs,
    ]
    for shard, entries in request.batches.items():
        for entry in entries:
            args += [shard, entry.offset, entry.count, entry.checksum, entry.payload]
    return args
