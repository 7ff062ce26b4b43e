"""Attributes that are made when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Owner = TypeVar("Owner")
Made = TypeVar("Made")


class lazy(Generic[Made]):  # noqa: N801 (used as a decorator)
    """As `functools.cached_property`, which before Python 3.12 holds one lock for all instances of a class: what is
    made for one shard would wait for what is made for another. Two threads may make the same one at once: both have
    to be equal.
    """

    def __init__(self, make: Callable[[Any], Made]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Owner]) -> lazy[Made]: ...
    @overload
    def __get__(self, instance: object, owner: type[Owner]) -> Made: ...
    def __get__(self, instance: object | None, owner: type[Owner]) -> lazy[Made] | Made:
        if instance is None:
            return self
        made = self._make(instance)
        vars(instance)[self._name] = made  # found before this descriptor from now on
        return made
