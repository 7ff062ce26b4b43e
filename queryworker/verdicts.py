"""The verdicts of the filters that a part was asked about last. Its rows never change, so they stay true."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import msgspec

from queryworker.filter import Part, Verdict, evaluate
from shared.where import Where

KEPT_MAX: Final = 16
"""Of one part; each is one or two bytes a row."""


class Verdicts:
    """Any number of threads may use it."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._kept: OrderedDict[bytes, Verdict] = OrderedDict()
        self._changing = threading.Lock()

    @property
    def bytes(self) -> int:
        return 2 * self._part.rows * len(self._kept)

    def of(self, where: Where) -> Verdict:
        key = msgspec.msgpack.encode(where)
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
