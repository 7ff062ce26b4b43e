"""How commands that work beside a cluster answer: results on standard output, as lines for people or as one JSON
object, complaints on standard error, and an exit code.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from polychrome.location import LocationError
from shared.errors import PolychromeError

WHOLE: Final = 0
"""Exit code: done, and nothing is damaged."""
DAMAGED: Final = 1
"""Exit code: done, and something is damaged: it was found, is left, or is missing in a backup."""
NOT_DONE: Final = 2
"""Exit code: nothing was done, or not all of what was asked for; the message says what."""

Result = TypeVar("Result")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds the option by which the result is printed for programs."""
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def json_of(answer: Any) -> str:
    """An answer that msgspec can encode, as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(answer, enc_hook=_plain)).decode()


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing that an answer has")


def show(answer: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Prints the result: the answer as JSON, or else the lines for people."""
    for line in [json_of(answer)] if as_json else lines:
        print(line, flush=True)


def say(line: str) -> None:
    """Prints a line that is not part of the result."""
    print(line, file=sys.stderr, flush=True)


def complain(command: str, problem: str) -> int:
    """Says why the command was not done. Returns its exit code."""
    say(f"polychrome {command}: {problem}")
    return NOT_DONE


def done_or_complain(command: str, work: Callable[[], Result]) -> Result | None:
    """The result of the work; None when it could not be done, which is said."""
    try:
        return work()
    except (PolychromeError, LocationError, OSError, ValueError) as error:
        complain(command, str(error))
    except BaseExceptionGroup as group:
        known, others = group.split((PolychromeError, OSError))
        if others is not None or known is None:
            raise
        complain(command, str(known.exceptions[0]))
    return None


def parse_count(text: str) -> int:
    """A number of things, 1 or more, for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, 1 or more")
    return int(text)


def parse_moment(text: str) -> float:
    """A moment in ISO 8601 with its time zone, in seconds since the epoch, for argparse."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment such as 2026-11-30T18:45:00Z") from error
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} names no time zone: end it with Z for UTC")
    return moment.timestamp()
