"""The limit of open files of a process: raised as far as it may be, and named when that is too low."""

from __future__ import annotations

import resource
from typing import Final

FILES_MIN: Final = 256
"""File descriptors below which a process does not start: its connections and files would fail one by one."""

FILES_ADVISED: Final = 4096
"""File descriptors below which a process starts, and says that they are few."""


def raise_limit() -> int:
    """Raises this process's soft limit of open files to the hard one, for its children too. Returns the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def problem_of(limit: int) -> str | None:
    """A sentence for people that says that this limit is low and what to allow; None when it is high enough."""
    if limit == resource.RLIM_INFINITY or limit >= FILES_ADVISED:
        return None
    return (
        f"only {limit} files may be open at once in a process (the hard limit of `ulimit -n`); each client connection, "
        f"and each file of a loaded shard, takes one: allow at least {FILES_ADVISED}"
    )


def too_few(limit: int) -> bool:
    """Whether no process can work under this limit."""
    return limit != resource.RLIM_INFINITY and limit < FILES_MIN
