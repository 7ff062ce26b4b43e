"""Counting the filters of a request before they are parsed: a few bytes of a filter can ask for much work of each
record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from frontend.parse.text_limits import utf8_bytes
from frontend.request_limits import RequestLimits, check_limit

_JOINS: Final = frozenset({"$and", "$or"})
_LISTS: Final = frozenset({"$in", "$nin"})
_REGEXES: Final = frozenset({"$regex", "$not_regex"})


class FilterCounter:
    """Counts all filters of one request, which share the limits."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._clauses = 0
        self._values = 0
        self._bytes = 0
        self.regexes = 0
        """Regular expressions in all filters so far."""

        self._regex_bytes = 0

    def add(self, where: str, filter_tree: Any) -> None:
        """Counts the filter in the member `where` of the body; null counts nothing. Stops at the first limit that is
        passed. Raises LimitExceeded.
        """
        if filter_tree is None:
            return
        self._add_clauses(where, 1)
        waiting = [filter_tree]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict):
                for key, operand in node.items():
                    waiting += self._operands(where, key, operand)

    def _operands(self, where: str, key: str, operand: Any) -> Iterable[Any]:
        """Counts one member of an object; those parts of its operand that are still to be counted."""
        self._add_bytes(where, utf8_bytes(key))
        if key in _JOINS and isinstance(operand, list):
            self._add_clauses(where, len(operand))
            return operand
        if key in _LISTS and isinstance(operand, list):
            self._values += len(operand)
            check_limit("values of $in and $nin", self._values, self._limits.filter_values_max, where)
            self._add_bytes(where, sum(utf8_bytes(value) for value in operand if isinstance(value, str)))
            return ()
        if isinstance(operand, str):
            size = utf8_bytes(operand)
            self._add_bytes(where, size)
            if key in _REGEXES:
                self._add_regex(where, size)
            return ()
        return (operand,) if isinstance(operand, dict) else ()

    def _add_clauses(self, where: str, count: int) -> None:
        self._clauses += count
        check_limit("clauses", self._clauses, self._limits.filter_clauses_max, where)

    def _add_bytes(self, where: str, size: int) -> None:
        self._bytes += size
        check_limit("bytes of keys and operands", self._bytes, self._limits.filter_bytes_max, where)

    def _add_regex(self, where: str, size: int) -> None:
        self.regexes += 1
        self._regex_bytes += size
        check_limit("regular expressions", self.regexes, self._limits.regexes_max, where)
        check_limit("bytes of regular expressions", self._regex_bytes, self._limits.regex_bytes_max, where)


def check_filters(filters: Mapping[str, Any], limits: RequestLimits) -> int:
    """Counts the filters of a request, by the members of the body that they stand in: the number of their regular
    expressions. Raises LimitExceeded.
    """
    counter = FilterCounter(limits)
    for where, filter_tree in filters.items():
        counter.add(where, filter_tree)
    return counter.regexes
