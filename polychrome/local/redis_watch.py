"""Whether the supervisor starts its Redis server again: not while there is no room for it, and not while it would
refuse its append-only file.

A torn end, which a crash of the machine leaves, is cut off: nothing in it was acknowledged. Anything else that is wrong
with the file is named, with what to do, and the server is not started again before somebody has done it: the server
itself could cut off all that comes after the damage, and nothing else.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Final

from polychrome.append_only.repair import UnrepairableError, check, cut_torn_end
from polychrome.local.process import Process
from polychrome.local.redis_server import RedisServer
from polychrome.local.space import SpaceWatch

_COMPLAINT: Final = re.compile(r"# .*(append only file|AOF manifest|AOF file|RDB|Short read or OOM)")
"""Words in a warning in the server's log when it refuses its append-only file."""

_LOADED: Final = "Ready to accept connections"
_LOG_LINES: Final = 1000
"""Lines of the server's log that are searched: it prints its registers and stack, when it aborts."""


class RedisWatch:
    """The watch over a cluster's own server (None: it has none). `command` repairs its data directory, `prefix` is the
    first part of the cluster's keys, `say` gets lines for people.
    """

    def __init__(
        self, server: RedisServer | None, space: SpaceWatch, command: str, prefix: str, say: Callable[[str], None]
    ) -> None:
        self._server = server
        self._space = space
        self._command = command
        self._prefix = prefix
        self._say = say
        self.problems: list[str] = []
        """Sentences about the append-only file; while there are any, the server is not started."""

    def may_start(self, process: Process) -> bool:
        """Whether a process that died may be started again now."""
        if process.spec.role != "redis":
            return True
        if self.problems or not self._space.may_start():
            return False
        self._space.server_restarts()
        return True

    def died(self, process: Process) -> None:
        """A process died: of the server, finds out whether its append-only file is the reason, and says so."""
        if process.spec.role != "redis" or self._server is None or not self._server.durable:
            return
        if not refused_its_file(process.exit_code(), process.log_tail(_LOG_LINES)):
            return
        try:
            self._judge(self._server)
        except UnrepairableError as error:
            self.problems = [f"{error}; `{self._command} --set-aside` starts without it, from what the bucket has"]
        for line in self.problems:
            self._say(line)

    def _judge(self, server: RedisServer) -> None:
        found = check(server.log_directory, server.program, self._prefix)
        if len(found) == 1 and found[0].damage.torn:
            self._say(f"{found[0].lines()[0]}; it is cut off")
            cut_torn_end(found[0])
        elif found:
            self.problems = [line for each in found for line in each.lines()]
            way_out = f"stop this, and run: {self._command} --write"
            self.problems.append(f"the append-only file is damaged, and Redis is not started; {way_out}")
        else:
            self._say(f"Redis refuses {server.log_directory}, in which nothing is found wrong; its log says why")


def refused_its_file(exit_code: int | None, log: str) -> bool:
    """Whether a server that ended so, and logged this since its start, refused its append-only file. One that was
    killed, or had loaded its file, did not.
    """
    if exit_code in (None, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT) or _LOADED in log:
        return False
    return _COMPLAINT.search(log) is not None
