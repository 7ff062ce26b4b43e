"""The results of the filters that were evaluated last on the same rows. The rows never change, so results stay true."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import msgspec

from queryworker.filter.evaluate import FilterColumns, evaluate
from queryworker.filter.result import FilterResult
from shared.records.where import Where

RESULTS_MAX: Final = 16
"""Most results kept for one set of rows. Each takes one or two bytes a row, and as much for each undecided clause."""

FILTER_BYTES_MAX: Final = 64 * 1024
"""The result of a filter that is longer than this, encoded, is not kept: the filter alone would take more memory than
is counted.
"""


class CachedFilters:
    """Evaluates filters on some rows and keeps the results, least recently used out first. Any number of threads may
    use it.
    """

    def __init__(self, columns: FilterColumns) -> None:
        self._columns = columns
        self._results: OrderedDict[bytes, FilterResult] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """About how much memory the kept results take."""
        with self._lock:
            results = list(self._results.values())
        return 2 * self._columns.rows * sum(1 + result.undecided_clauses for result in results)

    def evaluate(self, where: Where) -> FilterResult:
        """The rows that match, as a mask; errors as `queryworker.filter.evaluate.evaluate` raises them."""
        # By its bytes: in Python 1, 1.0 and True are equal, in a filter they are not.
        key = msgspec.msgpack.encode(where)
        if len(key) > FILTER_BYTES_MAX:
            return evaluate(where, self._columns)
        with self._lock:
            result = self._results.get(key)
            if result is not None:
                self._results.move_to_end(key)
                return result
        result = evaluate(where, self._columns)  # two threads may make the same result at once: both are right
        with self._lock:
            self._results[key] = result
            if len(self._results) > RESULTS_MAX:
                self._results.popitem(last=False)
        return result
