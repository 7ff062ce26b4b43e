"""Checking the shape of a JSON tree, and the message of the 422 that refuses a wrong one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import msgspec

from shared.errors import WrongShape

T = TypeVar("T")

_PREPARING: Final = threading.Lock()
_prepared: Final[set[Any]] = set()

_WRONG_SHAPE: Final = "Failed to deserialize the JSON body into the target type: "


def wrong_shape(reason: str) -> WrongShape:
    """The 422 of a body that is JSON of the wrong shape."""
    return WrongShape(_WRONG_SHAPE + reason)


@contextmanager
def inside(place: str) -> Iterator[None]:
    """Prefixes the message of a WrongShape that is raised in the block with the place in the body."""
    try:
        yield
    except WrongShape as error:
        raise wrong_shape(f"{place}: {error.message.removeprefix(_WRONG_SHAPE)}") from None


def _prepare(shape: Any) -> None:
    """Has msgspec describe the shape to itself, which it does at the first use, and not safely in two threads at once:
    one of them then reads a description that is not finished, and the process dies of SIGSEGV.
    """
    with _PREPARING:
        msgspec.json.Decoder(shape)
        _prepared.add(shape)


def shaped(tree: Any, shape: type[T]) -> T:
    """`tree` as a msgspec type, strictly: no number from text, no integer from `1.0`. Raises WrongShape."""
    if shape not in _prepared:
        _prepare(shape)
    try:
        return msgspec.convert(tree, shape, strict=True)
    except msgspec.ValidationError as error:
        raise wrong_shape(str(error)) from None


def require_object(tree: Any, fields: Iterable[str] = ()) -> dict[str, Any]:
    """`tree` if it is an object with those members. Raises WrongShape."""
    if type(tree) is not dict:
        raise wrong_shape(f"invalid type: expected an object, got {type(tree).__name__}")
    for field in fields:
        if field not in tree:
            raise wrong_shape(f"missing field `{field}`")
    return tree
