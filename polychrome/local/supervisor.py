"""Keeps the processes of a local cluster running, and stops them in order.

A dead process is started again at once; if it dies again soon, after a delay that doubles with every death, up to a
few seconds: what made it die may pass at any moment, and then the cluster must not wait for long. A process that has
run for some time begins without a delay again. Exit code 2 means a wrong configuration: trying again would change
nothing, so all stops.

The first SIGINT or SIGTERM drains and stops: frontends first (no new requests), then query workers (which get no more
calls), compactors, the log service, and Redis last, because all the others still write to it while they drain. A second
signal kills all at once; nothing acknowledged is lost by that.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Final

from polychrome.local.plan import STOP_ORDER
from polychrome.local.process import Process, rotate
from shared.process.config import ProcessConfig, parse_seconds, settings
from shared.process.stopping import ended_after_s

BAD_CONFIGURATION: Final = 2
RESTART_DELAY_FIRST_S: Final = 0.5
RESTART_DELAY_MAX_S: Final = 4.0
STEADY_AFTER_S: Final = 10.0
STOP_GRACE_S: Final = 30.0
"""Least time that a process is given to stop before it is killed, in seconds."""

SLOW_START_S: Final = 15.0
_POLL_S: Final = 0.05
_ROTATE_EVERY_S: Final = 30.0


def restart_delay_s(deaths: int) -> float:
    """Delay before the next start after this many deaths in a row, one at least."""
    if deaths == 1:
        return 0.0
    return float(min(RESTART_DELAY_FIRST_S * 2 ** (deaths - 2), RESTART_DELAY_MAX_S))


def stop_grace_s(environ: Mapping[str, str]) -> float:
    """Time that a process with this environment is given to stop, in seconds: more than it takes at most."""
    described = next(each for each in settings(ProcessConfig) if each.env == "POLYCHROME_DRAIN_TIMEOUT_S")
    text = environ.get(described.env)
    try:
        drain_timeout_s = described.default if text is None else parse_seconds(text)
    except ValueError:  # no process runs with it
        return STOP_GRACE_S
    return max(STOP_GRACE_S, ended_after_s(drain_timeout_s) + 1.0)


class BadConfigurationError(Exception):
    """A process refused its configuration; the message has the end of its log."""


@dataclass(slots=True)
class _Child:
    process: Process
    deaths: int = 0
    started_s: float = 0.0
    restart_at_s: float | None = None
    announced: bool = False
    slow_start_reported: bool = False


class Supervisor:
    """Runs the processes of a cluster. `ready` says whether a process is ready; `say` shows a line to people; `changed`
    is called when a process was started, so that pids and ports have changed; `prepare` is called after Redis was
    started and before all others are, while it loads its data; `stopping` is called before the first process is
    stopped. `check` is called many times a second; `may_start` says whether a process that died may be started again,
    and `died` is called when one did.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        ready: Callable[[Process], bool],
        say: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
        prepare: Callable[[], None] = lambda: None,
        stopping: Callable[[], None] = lambda: None,
        *,
        check: Callable[[], None] = lambda: None,
        may_start: Callable[[Process], bool] = lambda _process: True,
        died: Callable[[Process], None] = lambda _process: None,
    ) -> None:
        self._children = [_Child(process) for process in processes]
        self._ready = ready
        self._say = say
        self._changed = changed
        self._prepare = prepare
        self._stopping = stopping
        self._check_cluster = check
        self._may_start = may_start
        self._on_death = died
        self._wake = threading.Event()
        self._signals = 0
        self._rotated_s = time.monotonic()

    def install_signal_handlers(self) -> None:
        """Has SIGINT and SIGTERM stop the cluster. To be called in the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)

    def run(self, on_all_ready: Callable[[], None]) -> None:
        """Starts all, calls `on_all_ready` once they are ready, and keeps them running until a signal comes; then stops
        them. Raises BadConfigurationError.
        """
        servers = [child for child in self._children if child.process.spec.role == "redis"]
        try:
            for child in servers:
                self._start(child)
            self._prepare()
            for child in servers:  # without it, all others would wait, and log that they do
                self._until(partial(self._check, child))
            for child in self._children:
                if self._signals:
                    return
                if child not in servers:
                    self._start(child)
            self._until(self._check_all)
            if not self._signals:
                on_all_ready()
            self._until(self._watch)
        finally:
            self._stop_all()

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._wake.set()

    def _until(self, done: Callable[[], bool]) -> None:
        while not self._signals:
            self._check_cluster()
            if done():
                return
            self._wake.wait(_POLL_S)

    def _start(self, child: _Child) -> None:
        child.started_s = time.monotonic()
        child.restart_at_s = None
        child.slow_start_reported = False
        child.process.start()
        self._changed()

    def _watch(self) -> bool:
        """Does one round of checks of everything. Returns False: it is never done."""
        self._check_all()
        now = time.monotonic()
        if now - self._rotated_s > _ROTATE_EVERY_S:
            self._rotated_s = now
            for child in self._children:
                rotate(child.process.log_path)
        return False

    def _check_all(self) -> bool:
        up = [self._check(child) for child in self._children]
        return all(up)

    def _check(self, child: _Child) -> bool:
        """Starts a dead process again when its time has come, and notices deaths and readiness; whether it is ready."""
        process, now = child.process, time.monotonic()
        if child.restart_at_s is not None:
            if now >= child.restart_at_s and self._may_start(process):
                self._start(child)
        elif (code := process.exit_code()) is not None:
            self._died(child, code, now)
        elif not child.announced and self._ready(process):
            child.announced = True
            self._say(f"{process.spec.name:<16} ready   pid {process.pid}")
        elif not child.announced and not child.slow_start_reported and now - child.started_s > SLOW_START_S:
            child.slow_start_reported = True
            self._say(f"{process.spec.name:<16} not ready after {SLOW_START_S:g} s; see {process.log_path}")
        elif now - child.started_s > STEADY_AFTER_S:
            child.deaths = 0
        return child.announced

    def _died(self, child: _Child, code: int, now: float) -> None:
        process = child.process
        child.announced = False
        if code == BAD_CONFIGURATION and process.spec.role != "redis":
            raise BadConfigurationError(f"{process.spec.name} refuses its settings:\n{process.log_tail()}")
        child.deaths += 1
        delay_s = restart_delay_s(child.deaths)
        child.restart_at_s = now + delay_s
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        when = f"in {delay_s:g} s" if delay_s else "now"
        self._say(f"{process.spec.name:<16} died ({how}); starting it again {when}; see {process.log_path}")
        self._on_death(process)
        self._changed()

    def _stop_all(self) -> None:
        self._stopping()
        for role in STOP_ORDER:
            group = [child.process for child in self._children if child.process.spec.role == role]
            alive = [process for process in group if process.running()]
            for process in alive:
                process.send(signal.SIGTERM)
            for process in alive:
                self._say(f"{process.spec.name:<16} {self._await_end(process)}")

    def _await_end(self, process: Process) -> str:
        deadline_s = time.monotonic() + stop_grace_s(os.environ | dict(process.spec.environ))
        while self._signals < 2 and time.monotonic() < deadline_s:
            if process.wait(_POLL_S):
                return "stopped"
        if not process.running():
            return "stopped"
        process.kill()
        return "killed"
