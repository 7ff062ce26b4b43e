"""What the log was told and what clients know of it: the truth that answers are compared with.

The model of Redis shows every entry that is added to a stream. So of every operation that was ever appended its
position is known, whatever its client heard; and a value says which write it is of, since no two writes write the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from shared.log.batch import decode_batch
from shared.records.model import Op
from tests.simulation.redis_data import Effect

_STATE: Final = re.compile(rb"[^{]*\{([^}]*)\}:state")
_STREAM: Final = re.compile(rb"[^{]*\{([^}]*)\}:log:(\d+)")


class Violation(Exception):
    """A promise was broken. `kind` says which."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation in the log. `document` is None where the record was deleted."""

    position: int
    shard: int
    id: str
    document: str | None


@dataclass(frozen=True, slots=True)
class Loss:
    """What a reconciliation said may be missing of a collection: from `covered[shard]` on, below `head`."""

    covered: Mapping[int, int]
    head: int

    def excuses(self, operation: Operation) -> bool:
        return self.covered.get(operation.shard, operation.position) <= operation.position < self.head


@dataclass
class CollectionHistory:
    """The operations of one collection by position and by id, and what is known to be durable of them."""

    by_position: dict[int, Operation] = field(default_factory=dict)
    by_id: dict[str, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: set[tuple[str, str | None]] = field(default_factory=set)
    """(id, document) of what was acknowledged, deletions under a name of their own."""
    losses: list[Loss] = field(default_factory=list)
    committed: dict[int, int] = field(default_factory=dict)
    """By shard, the highest position up to which a committed manifest ever had everything."""
    dropped: set[int] = field(default_factory=set)
    """Positions of what Redis forgot when it went back, and no manifest had; of an append with all of its parts, since
    none is restored alone.
    """

    def positions_of(self, id_: str, document: str | None) -> list[int]:
        return [operation.position for operation in self.by_id[id_] if operation.document == document]


def operations_in(shard: int, effect: Effect) -> Iterator[Operation]:
    """The operations of the entry that an XADD has added to the stream of a shard."""
    fields = dict(zip(effect[3::2], effect[4::2], strict=True))
    first, batch = int(fields[b"f"]), decode_batch(fields[b"d"])
    columns = (batch.column(name).to_pylist() for name in ("op", "offset", "id", "document"))
    for op, offset, id_, document in zip(*columns, strict=True):
        yield Operation(first + offset, shard, id_, None if op == int(Op.DELETE) else document)


def whole_append(effect: Effect) -> range:
    """The positions of the append that the added entry is a part of."""
    fields = dict(zip(effect[3::2], effect[4::2], strict=True))
    return range(int(fields[b"f"]), int(fields[b"e"]))


class History:
    """The histories of all collections."""

    def __init__(self) -> None:
        self.collections: dict[str, CollectionHistory] = defaultdict(CollectionHistory)
        self.violations: list[Violation] = []

    def observe(self, effect: Effect) -> None:
        """Takes note of what a command of Redis has changed."""
        if effect[0] == b"XADD" and (stream := _STREAM.fullmatch(effect[1])):
            self._added(stream[1].decode(), int(stream[2]), effect)
        elif effect[0] == b"SET" and effect[1].endswith(b":report"):
            self._reported(orjson.loads(effect[2]))
        elif effect[0] == b"HSET" and (state := _STATE.fullmatch(effect[1])):
            self._changed(state[1].decode(), effect)

    def _added(self, collection: str, shard: int, effect: Effect) -> None:
        history = self.collections[collection]
        for operation in operations_in(shard, effect):
            known = history.by_position.get(operation.position)
            if known is None:
                history.by_position[operation.position] = operation
                history.by_id[operation.id].append(operation)
            elif (known.id, known.document) != (operation.id, operation.document):
                self.violations.append(
                    Violation("position handed out twice", f"{collection} {operation} and before {known}")
                )

    def _changed(self, collection: str, effect: Effect) -> None:
        committed = self.collections[collection].committed
        for name, value in zip(effect[2::2], effect[3::2], strict=True):
            if name.startswith(b"m:"):
                shard, covers = int(name[2:]), int(orjson.loads(value)["covers"])
                committed[shard] = max(committed.get(shard, 0), covers)

    def drop(self, effects: Iterable[Effect]) -> None:
        """Redis has forgotten these, and nobody can know."""
        for effect in effects:
            if effect[0] == b"XADD" and (stream := _STREAM.fullmatch(effect[1])):
                history, shard = self.collections[stream[1].decode()], int(stream[2])
                covers = history.committed.get(shard, 0)
                if any(operation.position >= covers for operation in operations_in(shard, effect)):
                    history.dropped |= set(whole_append(effect))

    def _reported(self, report: dict[str, Any]) -> None:
        for missing in report.get("missing", []):
            covered = dict(enumerate(missing["covered"]))
            self.collections[missing["collection"]].losses.append(Loss(covered, missing["head"]))

    # ---- what must be there

    def acknowledged_positions(self, collection: str, id_: str) -> list[int]:
        """The positions of the writes of an id that were acknowledged until now."""
        history = self.collections[collection]
        return [
            operation.position for operation in history.by_id[id_] if (id_, operation.document) in history.acknowledged
        ]

    def least_position(self, collection: str, positions: Iterable[int]) -> int:
        """The highest of these positions of acknowledged writes that no report names as missing; 0 without one."""
        history = self.collections[collection]
        kept = [
            position
            for position in positions
            if position not in history.dropped
            and not any(loss.excuses(history.by_position[position]) for loss in history.losses)
        ]
        return max(kept, default=0)

    def check_value(self, collection: str, id_: str, document: str | None, least: int, where: str) -> None:
        """Raises Violation unless `document` (None: there is no record) is what some write wrote that was appended at
        the position `least` or later; or what was there before all writes, when `least` is 0.
        """
        positions = self.collections[collection].positions_of(id_, document)
        if document is None and (not least or (positions and max(positions) >= least)):
            return
        if not positions:
            raise Violation("value from nowhere", f"{where}: {collection} {id_} is {document}, which nobody wrote")
        if max(positions) < least:
            raise Violation(
                "acknowledged write not there",
                f"{where}: {collection} {id_} is {document} of {positions}; an acknowledged write stands at {least}",
            )

    def acknowledge(self, collection: str, written: Iterable[tuple[str, str | None]]) -> None:
        """A client was told that these (id, document) are durable."""
        self.collections[collection].acknowledged.update(written)
