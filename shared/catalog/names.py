"""The rule for the names that clients and operators give to databases and collections."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

TOPOLOGY_MARK: Final = "+"
_PLAIN: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")


def name_problem(name: str) -> str | None:
    """Why `name` cannot be a database or a collection, None when it can. One `+` splits it into `topology+name`,
    and each half has to be a name by itself.
    """
    halves = name.split(TOPOLOGY_MARK)
    if len(halves) > 2:
        return "Expected a name to contain at most one topology:  Got two `+` characters."
    return next((problem for half in halves if (problem := _plain_problem(half))), None)


def _plain_problem(name: str) -> str | None:
    if not _PLAIN.fullmatch(name):
        return (
            "Expected a name containing 3-512 characters from [a-zA-Z0-9._-], starting and ending with a character in "
            f"[a-zA-Z0-9]. Got: {name}"
        )
    if ".." in name:
        return f"Expected a name that does not contains two consecutive periods (..). Got {name}"
    if _is_ip_address(name):
        return f"Expected a name that is not a valid ip address. Got {name}"
    return None


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
