"""The built-in functions: what they make of their inputs. Pure, but for counts of segments, which never change and are
remembered.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from compactor.sources import Source
from shared.records.model import HIDDEN_METADATA_PREFIX
from shared.vectors.sparse import is_sparse

Content = dict[str, dict[str, Any]]
"""The records of an output: metadata by id."""

REMEMBERED_MAX: Final = 2_000_000
"""Counts remembered of segments, all together; about 100 bytes each."""


class Value(NamedTuple):
    """A value of a metadata key as it is counted. `label` is what a sparse vector calls an index."""

    key: str
    kind: str
    text: str
    label: str | None = None


Counts = Counter[Value]

_KINDS: Final[dict[type, tuple[str, Callable[[Any], str]]]] = {
    bool: ("bool", lambda value: "true" if value else "false"),
    int: ("int", str),
    float: ("float", repr),
    str: ("str", str),
}


def values_of(metadata: str) -> Iterable[Value]:
    """Every value of a record's metadata; the elements of an array, and the indices of a sparse vector, each for
    itself.
    """
    for key, value in orjson.loads(metadata).items():
        if key.startswith(HIDDEN_METADATA_PREFIX):
            continue
        if is_sparse(value):
            labels = value.get("tokens") or [None] * len(value["indices"])
            yield from (
                Value(key, "sparse", str(index), label) for index, label in zip(value["indices"], labels, strict=True)
            )
            continue
        for scalar in value if type(value) is list else (value,):
            kind, text = _KINDS[type(scalar)]
            yield Value(key, kind, text(scalar))


def count(metadata: pa.ChunkedArray) -> Counts:
    """How many of these records have each value. `metadata` is JSON text, a row per record; a value that an array
    repeats counts once.
    """
    counts: Counts = Counter()
    for text in metadata.to_pylist():
        if text is not None:
            counts.update(set(values_of(text)))
    return counts


class Counted:
    """Counts the values in segments. The counts of all rows of a segment are remembered by its path, up to
    `remembered_max` values of all segments; those of its dead rows are subtracted each time.
    """

    def __init__(self, remembered_max: int = REMEMBERED_MAX) -> None:
        self._remembered_max = remembered_max
        self._whole: OrderedDict[str, Counts] = OrderedDict()
        self._size = 0

    def live(self, source: Source) -> Counts:
        """Counts over the live rows of a segment. Takes long: for a thread, one at a time."""
        counts = self._of_all(source).copy()
        if source.dead:
            dead = np.fromiter(source.dead, np.int64, len(source.dead))
            counts.subtract(count(source.segment.records.column("metadata").take(pa.array(dead))))
        return counts

    def _of_all(self, source: Source) -> Counts:
        path = source.info.path
        known = self._whole.get(path)
        if known is None:
            known = self._whole[path] = count(source.segment.records.column("metadata"))
            self._size += len(known)
        self._whole.move_to_end(path)
        while self._size > self._remembered_max and len(self._whole) > 1:
            _, forgotten = self._whole.popitem(last=False)
            self._size -= len(forgotten)
        return known


def record_counter(rows: int) -> Content:
    """The output of `record_counter`: one record with the number of records in the inputs."""
    return {"function_output": {"total_count": rows}}


def statistics(rows: int, counts: Sequence[Counts]) -> Content:
    """The output of `statistics`: a record per value, and one for the number of records, `rows`. `counts` are those of
    the inputs' segments. Of several labels of one index, the least is shown.
    """
    total: Counts = Counter()
    for of_segment in counts:
        total.update(of_segment)
    content: Content = {}
    for value, times in sorted(total.items(), key=_label, reverse=True):
        if times > 0:
            record = content.setdefault(
                f"{value.key}::{value.kind}:{value.text}",
                {"count": 0, "key": value.key, "type": value.kind, "value": value.text},
            )
            record["count"] += times
            record |= {} if value.label is None else {"value_label": value.label}
    summary = {"count": rows, "key": "summary", "type": "int", "value": "total_count"}
    return {**content, "summary::total_count": summary}


def _label(counted: tuple[Value, int]) -> str:
    return counted[0].label or ""
