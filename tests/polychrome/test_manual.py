"""The commands of docs/operations.md for backups, a lost Redis and a damaged bucket, run as they stand there."""

import datetime
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.waiting import wait_until
from tests.missing import needs
from tests.polychrome.terminal import COLLECTIONS, Terminal
from tests.rooms import CHECKOUT

pytestmark = pytest.mark.timeout(240)

MANUAL = (CHECKOUT / "docs" / "operations.md").read_text()
BACKUPS = "/mnt/backups"
MOMENT = re.compile(r"--at \S+")


def commands(section: str) -> list[str]:
    """The lines of the section's shell blocks, without their comments."""
    text = re.split(rf"^## {section}$", MANUAL, flags=re.MULTILINE)[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    assert blocks, f"the section {section} has no commands any more"
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]


class Desk:
    """An operator's shell in a directory in which `data` belongs to a running cluster."""

    def __init__(self, folder: Path, backups: Path) -> None:
        self.folder = folder
        self._backups = backups
        self.terminal: Terminal | None = None

    def start(self, data: str = "data") -> None:
        self.terminal = Terminal(self.folder / data, "--compactors", "1", "--query-workers", "1")
        self.terminal.until("Polychrome is ready")

    def stop(self) -> None:
        assert self.terminal is not None
        assert self.terminal.stop() == 0
        self.terminal.close()
        self.terminal = None

    def run(self, command: str, code: int = 0) -> str:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", command.replace(BACKUPS, str(self._backups))],
            cwd=self.folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, f"{command}: {done.stdout} {done.stderr}"
        return done.stdout

    def post(self, path: str, body: dict[str, Any]) -> Any:
        assert self.terminal is not None
        answer = httpx.post(f"{self.terminal.url}{COLLECTIONS}{path}", json=body, timeout=60)
        assert answer.is_success, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        assert self.terminal is not None
        return httpx.get(f"{self.terminal.url}{COLLECTIONS}{path}", timeout=60).json()

    def ids(self, name: str) -> list[str]:
        found: list[str] = self.post(f"/{self.get(f'/{name}')['id']}/get", {"include": []})["ids"]
        return sorted(found)

    def add(self, collection: str, first: int, count: int) -> None:
        ids = [f"row-{number:03}" for number in range(first, first + count)]
        self.post(f"/{collection}/add", {"ids": ids, "embeddings": [[float(len(each)), 1.0] for each in ids]})

    def indexed(self, collection: str) -> None:
        wait_until(lambda: self.get(f"/{collection}/indexing_status")["num_unindexed_ops"] == 0, "compacted", 60)


@contextmanager
def at_desk(folder: Path, backups: Path) -> Iterator[Desk]:
    folder.mkdir()
    desk = Desk(folder, backups)
    try:
        yield desk
    finally:
        if desk.terminal is not None:
            desk.terminal.close()


def test_the_commands_of_the_manual_do_what_it_says(tmp_path: Path) -> None:
    with at_desk(tmp_path / "desk", tmp_path / "backups") as desk:
        desk.start()
        shop = desk.post("", {"name": "shop", "metadata": {"polychrome:shards": 2, "polychrome:history_s": 600}})["id"]
        desk.add(shop, 0, 40)
        desk.indexed(shop)
        time.sleep(0.01)
        moment = datetime.datetime.now(datetime.UTC).isoformat()
        time.sleep(0.01)
        desk.add(shop, 40, 10)
        everything = desk.ids("shop")
        backups(desk, moment, tmp_path)
        damaged_bucket(desk, shop, everything)
        lost_redis(desk, shop, everything)


def backups(desk: Desk, moment: str, tmp_path: Path) -> None:
    everything = desk.ids("shop")
    for command in commands("Backup and restore"):
        if command == f"polychrome restore {BACKUPS}":
            with at_desk(tmp_path / "empty", tmp_path / "backups") as empty:
                empty.start()
                empty.run(command)
                assert empty.ids("shop") == everything
        elif MOMENT.search(command):
            desk.run(MOMENT.sub(f"--at {moment}", command))
            assert desk.ids("shop-1845") == everything[:40]
        else:
            desk.run(command)
    with at_desk(tmp_path / "copied", tmp_path / "backups") as copied:
        desk.folder.joinpath("copy").rename(copied.folder / "copy")
        copied.start("copy")
        assert copied.ids("shop") == everything


def damaged_bucket(desk: Desk, shop: str, everything: list[str]) -> None:
    desk.indexed(shop)
    desk.run(f"polychrome backup {BACKUPS}")
    victim = max((desk.folder / "data" / "objects" / shop).rglob("records.arrow"), key=lambda path: path.stat().st_size)
    victim.unlink()
    verify, dry, repair = commands("Losing the bucket")
    desk.run(verify, code=1)
    desk.run(dry, code=1)
    desk.run(repair)
    desk.run(verify)
    assert desk.ids("shop") == everything


def lost_redis(desk: Desk, shop: str, everything: list[str]) -> None:
    desk.indexed(shop)
    desk.stop()
    assert " states" in desk.run("polychrome verify")  # out of the append-only file
    [command] = commands("Losing Redis")
    desk.run(command)
    desk.start()
    assert desk.ids("shop") == everything


def test_the_past_is_read_and_forked_by_the_commands_of_the_manual(tmp_path: Path) -> None:
    needs("curl")
    with at_desk(tmp_path / "desk", tmp_path / "backups") as desk:
        desk.start()
        assert desk.terminal is not None
        shop = desk.post("", {"name": "shop", "metadata": {"polychrome:history_s": 600}})["id"]
        desk.add(shop, 0, 40)
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        time.sleep(0.01)
        desk.add(shop, 40, 10)
        script = "\n".join(commands("The past of a collection")).replace("http://127.0.0.1:8000", desk.terminal.url)
        said = desk.run(script.replace("2026-11-30T18:45:00Z", moment).replace("curl ", "curl --fail-with-body -s "))
        assert said.startswith("{}40{"), said
        assert desk.ids("shop-then") == desk.ids("shop")[:40]
        desk.stop()
