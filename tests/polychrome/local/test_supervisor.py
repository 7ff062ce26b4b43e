"""The supervisor with stand-in processes: shell scripts that say when they are ready and when they stop."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polychrome.local.process import LOG_BYTES_MAX, Process, ProcessSpec, rotate
from polychrome.local.supervisor import (
    RESTART_DELAY_MAX_S,
    BadConfigurationError,
    Supervisor,
    restart_delay_s,
)

STEADY = 'trap \'echo "$NAME stopped" >> "$JOURNAL"; exit 0\' TERM; echo up; while :; do sleep 0.05; done'
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Stage:
    """Processes in a directory, the lines said, and what to do on a line that holds a word."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = directory / "journal"
        self.lines: list[str] = []
        self.processes: dict[str, Process] = {}
        self._reactions: list[tuple[str, Callable[[], None]]] = []

    def add(self, name: str, role: str, script: str = STEADY) -> Process:
        environ = {"NAME": name, "JOURNAL": str(self.journal)}
        process = Process(ProcessSpec(name, role, ("/bin/sh", "-c", script), environ), self.directory / f"{name}.log")
        self.processes[name] = process
        return process

    def on(self, word: str, react: Callable[[], None]) -> None:
        """Once, in the order given."""
        self._reactions.append((word, react))

    def say(self, line: str) -> None:
        self.lines.append(line)
        if self._reactions and self._reactions[0][0] in line:
            self._reactions.pop(0)[1]()

    def run(self) -> None:
        def ready(process: Process) -> bool:
            return process.running() and "up" in process.log_tail()

        supervisor = Supervisor(list(self.processes.values()), ready, self.say)
        supervisor.install_signal_handlers()
        supervisor.run(lambda: self.say("all ready"))


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    for process in made.processes.values():
        process.kill()


def test_all_stop_in_order_with_redis_last(stage: Stage) -> None:
    for role in ("redis", "logservice", "compactor", "queryworker", "frontend"):
        stage.add(f"{role}-1", role)
    stage.on("all ready", interrupt)
    stage.run()
    assert stage.journal.read_text().split() == [
        word
        for role in ("frontend", "queryworker", "compactor", "logservice", "redis")
        for word in (f"{role}-1", "stopped")
    ]
    assert not any(process.running() for process in stage.processes.values())


def test_one_line_per_process_then_the_url(stage: Stage) -> None:
    stage.add("redis", "redis")
    stage.add("frontend-1", "frontend")
    stage.on("all ready", interrupt)
    stage.run()
    assert [line.split()[:2] for line in stage.lines[:3]] == [
        ["redis", "ready"],
        ["frontend-1", "ready"],
        ["all", "ready"],
    ]


def test_a_dead_process_is_started_again_and_said_so(stage: Stage) -> None:
    worker = stage.add("queryworker-1", "queryworker")
    pids: list[int | None] = []

    def kill() -> None:
        pids.append(worker.pid)
        worker.kill()
        worker.log_path.write_text("")

    stage.on("all ready", kill)
    stage.on("died (SIGKILL)", lambda: None)
    stage.on("ready", interrupt)
    stage.run()
    assert worker.pid not in pids
    assert any("starting it again now" in line for line in stage.lines)


def test_the_first_restart_is_immediate_and_later_ones_wait_longer_up_to_a_few_seconds() -> None:
    assert [restart_delay_s(deaths) for deaths in (1, 2, 3, 4)] == [0.0, 0.5, 1.0, 2.0]
    assert restart_delay_s(50) == RESTART_DELAY_MAX_S <= 5.0


def test_a_second_signal_kills_what_does_not_stop(stage: Stage) -> None:
    stage.add("frontend-1", "frontend", STUBBORN)
    stubborn = stage.add("compactor-1", "compactor", STUBBORN)
    steady = stage.add("redis", "redis")

    def interrupt_twice() -> None:
        interrupt()
        interrupt()

    stage.on("all ready", interrupt_twice)
    stage.run()
    assert [line.split() for line in stage.lines[-3:]][:2] == [["frontend-1", "killed"], ["compactor-1", "killed"]]
    assert not stubborn.running()
    assert not steady.running()


def test_a_wrong_configuration_stops_everything_and_says_why(stage: Stage) -> None:
    steady = stage.add("frontend-1", "frontend")
    stage.add("compactor-1", "compactor", "echo POLYCHROME_COMPACTOR_X is not a setting >&2; exit 2")
    (stage.directory / "compactor-1.log").write_text("what an earlier run has left\n")
    with pytest.raises(BadConfigurationError) as refused:
        stage.run()
    assert str(refused.value) == "compactor-1 refuses its settings:\nPOLYCHROME_COMPACTOR_X is not a setting"
    assert not steady.running()


def test_a_process_that_is_slow_to_come_up_is_named_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polychrome.local.supervisor.SLOW_START_S", 0.2)
    stage.add("frontend-1", "frontend", "while [ ! -e go ]; do sleep 0.05; done; " + STEADY)
    stage.add("compactor-1", "compactor")
    monkeypatch.chdir(stage.directory)
    stage.on("frontend-1       not ready after 0.2 s", (stage.directory / "go").touch)
    stage.on("all ready", interrupt)
    stage.run()
    assert [line.split()[1] for line in stage.lines if line.startswith("frontend-1")] == ["not", "ready", "stopped"]


def test_a_large_log_is_put_aside_and_written_on(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("ab") as log:
        log.truncate(LOG_BYTES_MAX + 1)
        rotate(path)
        log.write(b"next\n")
    assert path.read_bytes() == b"next\n"
    assert (tmp_path / "a.log.1").stat().st_size == LOG_BYTES_MAX + 1
