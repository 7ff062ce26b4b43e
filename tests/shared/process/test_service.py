"""The life of a process, tried on a real one: its service is defined below and run as a program."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from shared.process.service import _never_ending

PROGRAM = """
import asyncio, contextlib, os, time
from pathlib import Path
from shared.process import stopping
from shared.process.config import ProcessConfig
from shared.errors import Unavailable
from shared.process.service import main

mode = os.environ["MODE"]
flag = Path(os.environ["FLAG"])
if mode.startswith("closing"):
    stopping.CLOSE_S = stopping.EXIT_S = 0.3

class Service:
    def __init__(self):
        self.loops = [self.loop]
        self.drained = False
    async def loop(self):
        if mode == "dies":
            raise ValueError("the loop is broken")
        await asyncio.Event().wait()
    def ready(self):
        return True
    async def drain(self):
        flag.write_text("draining")
        if mode == "hangs":
            await asyncio.Event().wait()

@contextlib.asynccontextmanager
async def open_service(config):
    if mode == "away" and not flag.exists():
        raise Unavailable("redis is away")
    try:
        yield Service()
    finally:
        try:
            if mode == "closing hangs":
                await asyncio.Event().wait()
            if mode == "closing blocks":
                time.sleep(3600)
        finally:
            flag.with_suffix(".closed").write_text("closed")

main("frontend", ProcessConfig, open_service)
"""

HANGS_S = 60.0
"""What takes longer is taken to hang."""


class Process:
    def __init__(self, tmp_path: Path, mode: str, **environ: str) -> None:
        self.flag = tmp_path / "flag"
        self.closed = tmp_path / "flag.closed"
        settings = {"REDIS_URL": "redis://127.0.0.1:1/0", "POLYCHROME_BUCKET_URL": "file:///nowhere"}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | settings | {"MODE": mode, "FLAG": str(self.flag)} | environ,
            stderr=subprocess.PIPE,
        )
        assert self.popen.stderr is not None
        self.stderr: IO[bytes] = self.popen.stderr

    def event(self, name: str) -> dict[str, Any]:
        """Read log lines until the one with this event."""
        for line in self.stderr:
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == name:
                return entry
        raise AssertionError(f"the process ended without {name!r}")

    def get(self, admin: str, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{admin}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Process]:
    started = (
        Process(tmp_path, request.param[0], **request.param[1])
        if isinstance(request.param, tuple)
        else Process(tmp_path, request.param)
    )
    yield started
    started.popen.kill()
    started.popen.wait()
    started.stderr.close()


@pytest.mark.parametrize("process", ["steady"], indirect=True)
def test_a_stopped_process_drains_closes_and_exits_with_zero(process: Process) -> None:
    admin = process.event("ready")["admin"]
    assert process.get(admin, "/livez")[0] == 200
    assert process.get(admin, "/readyz")[0] == 200
    assert "python_info" in process.get(admin, "/metrics")[1]
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(HANGS_S) == 0
    assert process.flag.read_text() == "draining"
    assert process.closed.exists()


@pytest.mark.parametrize("process", ["dies"], indirect=True)
def test_a_loop_that_dies_takes_the_process_down(process: Process) -> None:
    assert "the loop is broken" in process.event("died")["exception"]
    assert process.popen.wait(HANGS_S) == 1
    assert process.closed.exists()


@pytest.mark.parametrize("process", ["hangs"], indirect=True)
def test_while_draining_it_is_alive_and_not_ready_and_a_second_signal_ends_it(process: Process) -> None:
    admin = process.event("ready")["admin"]
    process.popen.send_signal(signal.SIGTERM)
    process.event("stopping")
    assert process.get(admin, "/livez")[0] == 200
    assert process.get(admin, "/readyz")[0] == 503
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(HANGS_S) == 128 + signal.SIGTERM


@pytest.mark.parametrize("process", [("hangs", {"POLYCHROME_DRAIN_TIMEOUT_S": "0.1"})], indirect=True)
def test_what_does_not_drain_in_time_is_closed_all_the_same(process: Process) -> None:
    process.event("ready")
    process.popen.send_signal(signal.SIGTERM)
    assert process.event("drain_cut_short")["timeout_s"] == 0.1
    process.event("stopped")
    assert process.popen.wait(HANGS_S) == 0
    assert process.closed.exists()


@pytest.mark.parametrize("process", [("closing hangs", {"POLYCHROME_DRAIN_TIMEOUT_S": "0.1"})], indirect=True)
def test_what_does_not_close_in_time_is_cancelled_and_the_rest_is_closed(process: Process) -> None:
    process.event("ready")
    process.popen.send_signal(signal.SIGTERM)
    process.event("stop_cut_short")
    assert process.popen.wait(HANGS_S) == 1
    assert process.closed.exists()


@pytest.mark.parametrize("process", [("closing blocks", {"POLYCHROME_DRAIN_TIMEOUT_S": "0.1"})], indirect=True)
def test_a_process_that_cannot_even_be_cancelled_ends_and_shows_where_it_was(process: Process) -> None:
    process.event("ready")
    process.popen.send_signal(signal.SIGTERM)
    process.event("stopping")
    assert process.popen.wait(HANGS_S) == 1
    assert b"in open_service" in process.stderr.read()


@pytest.mark.parametrize("process", ["away"], indirect=True)
def test_it_waits_for_what_is_away_and_is_not_ready_meanwhile(process: Process) -> None:
    assert process.event("waiting")["error"] == "redis is away"
    process.flag.write_text("back")
    process.event("ready")


@pytest.mark.parametrize("process", ["away"], indirect=True)
def test_it_can_be_stopped_while_it_waits(process: Process) -> None:
    process.event("waiting")
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(HANGS_S) == 0


def test_a_wrong_configuration_ends_it_with_every_problem(tmp_path: Path) -> None:
    process = Process(tmp_path, "steady", REDIS_URL="nonsense", POLYCHROME_LOG_LEVEL="loud")
    _, errors = process.popen.communicate(timeout=HANGS_S)
    assert process.popen.returncode == 2
    assert b"REDIS_URL" in errors
    assert b"POLYCHROME_LOG_LEVEL" in errors


async def test_a_loop_that_is_cancelled_from_within_counts_as_a_defect_and_one_from_without_ends() -> None:
    async def from_within() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled from within"):
        await asyncio.create_task(_never_ending(from_within))

    async def for_ever() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(_never_ending(for_ever))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
