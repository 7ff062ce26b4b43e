"""A process beside the tests that has imported what the roles have in common, and starts copies of itself.

The processes of a local cluster begin as copies of the supervisor (`polychrome.local.fork`). Those of a test cluster
cannot be copies of pytest, which has threads: they are copies of this one process, which every cluster of a pytest
process shares. A process that starts as a new interpreter compiles and imports for most of a second of a core.

Requests and answers are lines of JSON on a socket. When pytest ends, however that happens, the socket is closed: the
server ends then, and its children with it.
"""

from __future__ import annotations

import functools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from polychrome.local.fork import ForkedModule, prepare

POLL_S: Final = 0.01


class ForkServer:
    """The server as its clients see it. May be used by several threads."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.cluster.fork_server", str(theirs.fileno())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._lines = ours.makefile("rw", encoding="utf-8")
        self._socket = ours
        self._lock = threading.Lock()

    def ask(self, action: str, *args: Any) -> Any:
        """What the server answers. Raises RuntimeError when it has ended."""
        with self._lock:
            self._lines.write(json.dumps([action, *args]) + "\n")
            self._lines.flush()
            answer = self._lines.readline()
        if not answer:
            raise RuntimeError("the fork server has ended")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the server and all its children."""
        with self._lock:
            self._lines.close()
            self._socket.close()
        self._process.wait()


@functools.cache
def fork_server() -> ForkServer:
    """The server of this pytest process: started when it is first wanted, and ended with it."""
    return ForkServer()


class ServedModule:
    """`python -m <module>` as a copy of the server. Has the methods of `subprocess.Popen` that are needed here."""

    def __init__(
        self, module: str, name: str, environ: Mapping[str, str], log_path: Path, close_fds: Sequence[int] = ()
    ) -> None:
        assert not close_fds, "the server has none of this process's file descriptors"
        self._server = fork_server()
        self._name = name
        self.pid: int = self._server.ask("start", module, name, dict(environ), str(log_path))
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None:
            self._code = self._server.ask("poll", self.pid)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired after `timeout` seconds (None: never)."""
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise subprocess.TimeoutExpired(self._name, timeout or 0.0)
            time.sleep(POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        self._server.ask("signal", self.pid, number)


def serve(requests: socket.socket) -> None:
    """Answers until the socket is closed. Its children are killed by the kernel when this process ends."""
    prepare()
    children: dict[int, ForkedModule] = {}
    with requests.makefile("rw", encoding="utf-8") as lines:
        for line in iter(lines.readline, ""):
            action, *args = json.loads(line)
            answer: int | None = None
            if action == "start":
                module, name, environ, log_path = args
                child = ForkedModule(module, name, environ, Path(log_path), [requests.fileno()])
                children[child.pid], answer = child, child.pid
            elif action == "poll":
                answer = children[args[0]].poll()
            else:
                children[args[0]].send_signal(args[1])
            lines.write(json.dumps(answer) + "\n")
            lines.flush()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
