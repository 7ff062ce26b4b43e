"""Waiting without sleeping blindly."""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx

T = TypeVar("T")

PAUSE_S = 0.05
PASSING = (AssertionError, OSError, LookupError, ValueError, httpx.HTTPError)
"""What may still become right. Anything else, a RuntimeError say, ends the wait."""


def wait_until(check: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
    """Calls `check` until it returns something true and returns that. On timeout the error carries the last failure."""
    deadline_s = time.monotonic() + timeout_s
    last: object = None
    while True:
        try:
            if answer := check():
                return answer
            last = answer
        except (AssertionError, OSError, LookupError, ValueError) as error:
            last = error
        except Exception as error:
            last = error
        if time.monotonic() > deadline_s:
            raise AssertionError(f"after {timeout_s:g} s still not {what}; last: {last!r}")
        time.sleep(PAUSE_S)
