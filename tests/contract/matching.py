"""Does an answer's body match what a recorded case expects?

Objects need exactly the members that are expected, lists exactly the items, in their order. Besides:

    "<any>"                   anything
    "<str>" "<int>" "<num>"   a string; an integer; any number
    "<uuid>"                  a UUID in its usual spelling
    "<re:PATTERN>"            a string in which PATTERN is found; `.` matches line ends, too
    {"<unordered>": [...]}    a list of these items in any order

Numbers need not be of one type, 1 matches 1.0, and are equal when they differ by less than 1e-4 of the larger one, or
by less than 1e-5; two integers have to be equal. Inside `metadata` and `metadatas` integers and floats are two types.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

RELATIVE_TOLERANCE: Final = 1e-4
ABSOLUTE_TOLERANCE: Final = 1e-5
TYPED_MEMBERS: Final = frozenset({"metadata", "metadatas"})
UNORDERED: Final = "<unordered>"
SHOWN_CHARACTERS_MAX: Final = 140

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PATTERN: Final = re.compile(r"<re:(.*)>", re.DOTALL)

_MARKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "<any>": lambda _: True,
    "<str>": lambda given: isinstance(given, str),
    "<int>": lambda given: type(given) is int,
    "<num>": lambda given: type(given) in (int, float),
    "<uuid>": lambda given: isinstance(given, str) and _UUID.fullmatch(given) is not None,
}


def difference(expected: Any, given: Any, place: str = "$", *, typed: bool = False) -> str | None:
    """The first difference between two JSON values and its place, None when `given` matches. `typed`: 1 is not 1.0."""
    match expected:
        case dict() if expected.keys() == {UNORDERED}:
            return _difference_of_sets(expected[UNORDERED], given, place, typed=typed)
        case dict():
            return _difference_of_objects(expected, given, place, typed=typed)
        case list():
            return _difference_of_lists(expected, given, place, typed=typed)
        case str():
            same = _matches_text(expected, given)
        case None | bool():
            same = given is expected
        case _:
            same = _matches_number(expected, given, typed=typed)
    return None if same else f"{place}: expected {shown(expected)}, got {shown(given)}"


def shown(value: Any) -> str:
    """A JSON value for a line of a report, cut when it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 3] + "..."


def _matches_text(expected: str, given: Any) -> bool:
    mark = _MARKS.get(expected)
    if mark is not None:
        return mark(given)
    pattern = _PATTERN.fullmatch(expected)
    if pattern is not None:
        return isinstance(given, str) and re.search(pattern[1], given, re.DOTALL) is not None
    return bool(given == expected)


def _matches_number(expected: float, given: Any, *, typed: bool) -> bool:
    if type(given) not in (int, float) or (typed and type(given) is not type(expected)):
        return False
    if type(expected) is int and type(given) is int:
        return expected == given
    return math.isclose(expected, given, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)


def _difference_of_lists(expected: Sequence[Any], given: Any, place: str, *, typed: bool) -> str | None:
    if not isinstance(given, list) or len(given) != len(expected):
        return f"{place}: expected {len(expected)} items {shown(expected)}, got {shown(given)}"
    for index, (one, other) in enumerate(zip(expected, given, strict=True)):
        found = difference(one, other, f"{place}[{index}]", typed=typed)
        if found is not None:
            return found
    return None


def _difference_of_sets(expected: Sequence[Any], given: Any, place: str, *, typed: bool) -> str | None:
    if not isinstance(given, list) or len(given) != len(expected):
        return f"{place}: expected {len(expected)} items in any order, got {shown(given)}"
    left = list(given)
    for one in expected:
        found = next((index for index, other in enumerate(left) if difference(one, other, typed=typed) is None), None)
        if found is None:
            return f"{place}: no item matches {shown(one)} in {shown(given)}"
        del left[found]
    return None


def _difference_of_objects(expected: Mapping[str, Any], given: Any, place: str, *, typed: bool) -> str | None:
    if not isinstance(given, dict):
        return f"{place}: expected an object, got {shown(given)}"
    if expected.keys() != given.keys():
        missing, unexpected = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
        return f"{place}: members missing {missing}, unexpected {unexpected}"
    for name, one in expected.items():
        found = difference(one, given[name], f"{place}.{name}", typed=typed or name in TYPED_MEMBERS)
        if found is not None:
            return found
    return None
