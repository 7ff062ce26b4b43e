"""`polychrome repair-redis`: names what is damaged in the append-only file of a stopped cluster, and repairs it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from polychrome.append_only.repair import UnrepairableError, check, repair, set_aside
from polychrome.local.datadir import open_data_dir
from polychrome.local.plan import ClusterOptions
from polychrome.local.redis_server import RedisServer, redis_server


def add_repair_redis(parser: argparse.ArgumentParser) -> None:
    """Gives the command its options."""
    add = parser.add_argument
    add("--data-dir", type=Path, default=ClusterOptions().data_dir, help="that of the cluster (default: ./%(default)s)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help="repair it: leave out what is shown as lost, nothing else")
    text = "move all of it away: the next start restores what the bucket has"
    how.add_argument("--set-aside", action="store_true", help=text)
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    prefix = os.environ.get("POLYCHROME_REDIS_PREFIX", "pc")
    return repair_redis(given.data_dir, prefix, _say, write=given.write, aside=given.set_aside)


def _say(line: str) -> None:
    print(line, flush=True)


def repair_redis(data_dir: Path, prefix: str, say: Callable[[str], None], *, write: bool, aside: bool) -> int:
    """Shows what is damaged in the append-only file below `data_dir`, and what is lost by a repair. With `write` it is
    repaired, with `aside` all of it is moved out of the way. Returns the exit code: 1 while it is damaged. Raises
    DataDirError, NoRedisServerError.
    """
    if not (data_dir / "redis").is_dir():
        say(f"{data_dir} is not the data directory of a cluster that runs its own Redis (--data-dir names another)")
        return 1
    with open_data_dir(data_dir, say) as opened:
        server = redis_server(opened.redis)
        if not server.log_directory.is_dir():
            say(f"there is no append-only file in {opened.redis}")
            return 1
        if aside:
            say(f"moved to {set_aside(server.log_directory)}; the next start restores what the bucket has")
            return 0
        try:
            return _repair(server, prefix, say, write=write)
        except UnrepairableError as error:
            say(f"{error}; --set-aside starts without it, from what the bucket has")
            return 1


def _repair(server: RedisServer, prefix: str, say: Callable[[str], None], *, write: bool) -> int:
    found = check(server.log_directory, server.program, prefix)
    for each in found:
        for line in each.lines():
            say(line)
    if not found:
        say(f"the append-only file in {server.log_directory} is whole")
        return 0
    if not write:
        say("nothing was changed; --write leaves out what is lost, and keeps everything else")
        return 1
    say(f"repaired; the files as they were are in {repair(found, server.log_directory)}")
    return 0
