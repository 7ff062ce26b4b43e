"""The verdicts of the filters that a part was asked about last. Its rows never change, so they stay true."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import msgspec

from queryworker.filter.evaluate import Part, Verdict, evaluate
from shared.records.where import Where

KEPT_MAX: Final = 16
"""Of one part; each is one or two bytes a row, and as much for each clause that it is open about."""

FILTER_BYTES_MAX: Final = 64 * 1024
"""The verdict of a longer filter is not kept: the filter alone would take more than what is counted."""


class Verdicts:
    """Any number of threads may use it."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._kept: OrderedDict[bytes, Verdict] = OrderedDict()
        self._changing = threading.Lock()

    @property
    def bytes(self) -> int:
        with self._changing:
            return 2 * self._part.rows * sum(1 + verdict.opened for verdict in self._kept.values())

    def of(self, where: Where) -> Verdict:
        key = msgspec.msgpack.encode(where)
        if len(key) > FILTER_BYTES_MAX:
            return evaluate(where, self._part)
        with self._changing:
            verdict = self._kept.get(key)
            if verdict is not None:
                self._kept.move_to_end(key)
                return verdict
        verdict = evaluate(where, self._part)  # two threads may make the same one at once: they are equal
        with self._changing:
            self._kept[key] = verdict
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return verdict
