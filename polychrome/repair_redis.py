"""`polychrome repair-redis`: names what is damaged in the append-only file of a stopped cluster, and repairs it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from polychrome.answering import add_json, say, show
from polychrome.append_only.repair import FileDamage, UnrepairableError, check, repair, set_aside
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
    add_json(parser)
    parser.set_defaults(run=_run)


class RedisRepair(msgspec.Struct, frozen=True, kw_only=True):
    """The result: what is damaged (`found`), whether it is still (`damaged`), where the files are that were moved out
    of the way or replaced (`kept`), and a sentence about what was done, or why nothing could be.
    """

    found: list[FileDamage] = []
    damaged: bool = False
    kept: Path | None = None
    what: str

    def lines(self) -> list[str]:
        """The result for people."""
        return [*(line for each in self.found for line in each.lines()), self.what]


def _run(given: argparse.Namespace) -> int:
    prefix = os.environ.get("POLYCHROME_REDIS_PREFIX", "pc")
    result = repair_redis(given.data_dir, prefix, say, write=given.write, aside=given.set_aside)
    show(result, result.lines(), as_json=given.json)
    return int(result.damaged)


def repair_redis(data_dir: Path, prefix: str, say: Callable[[str], None], *, write: bool, aside: bool) -> RedisRepair:
    """Finds what is damaged in the append-only file below `data_dir`, and what is lost by a repair. With `write` it is
    repaired, with `aside` all of it is moved out of the way. A file that is not there counts as damaged. `say` is told
    what is done to the directory itself. Raises DataDirError, NoRedisServerError.
    """
    if not (data_dir / "redis").is_dir():
        what = f"{data_dir} is not the data directory of a cluster that runs its own Redis (--data-dir names another)"
        return RedisRepair(damaged=True, what=what)
    with open_data_dir(data_dir, say) as opened:
        server = redis_server(opened.redis)
        if not server.log_directory.is_dir():
            return RedisRepair(damaged=True, what=f"there is no append-only file in {opened.redis}")
        if aside:
            kept = set_aside(server.log_directory)
            return RedisRepair(kept=kept, what=f"moved to {kept}; the next start restores what the bucket has")
        try:
            return _repair(server, prefix, write=write)
        except UnrepairableError as error:
            what = f"{error}; --set-aside starts without it, from what the bucket has"
            return RedisRepair(damaged=True, what=what)


def _repair(server: RedisServer, prefix: str, *, write: bool) -> RedisRepair:
    found = check(server.log_directory, server.program, prefix)
    if not found:
        return RedisRepair(what=f"the append-only file in {server.log_directory} is whole")
    if not write:
        what = "nothing was changed; --write leaves out what is lost, and keeps everything else"
        return RedisRepair(found=found, damaged=True, what=what)
    kept = repair(found, server.log_directory)
    return RedisRepair(found=found, kept=kept, what=f"repaired; the files as they were are in {kept}")
