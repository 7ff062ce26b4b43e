"""Attributes that are computed when they are first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Owner = TypeVar("Owner")
Value = TypeVar("Value")


class lazy(Generic[Value]):  # noqa: N801 (used as a decorator)
    """A property whose value is computed once for each instance, as that of `functools.cached_property`.

    Before Python 3.12 that holds one lock for all instances of a class: what is computed for one shard would wait for
    what is computed for another. Here two threads may compute the same value at once; both values have to be equal.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> lazy[Value]: ...
    @overload
    def __get__(self, instance: object, owner: type[Owner]) -> Value: ...
    def __get__(self, instance: object | None, owner: type[Owner]) -> lazy[Value] | Value:
        if instance is None:
            return self
        value = self._compute(instance)
        vars(instance)[self._name] = value  # found before this descriptor from now on
        return value
