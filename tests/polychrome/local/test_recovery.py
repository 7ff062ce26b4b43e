"""However quickly processes are killed one after the other, the cluster is back soon after the last of them."""

import contextlib
import os
import signal
import time
from pathlib import Path

import httpx

from tests.cluster.waiting import wait_until
from tests.polychrome.terminal import Terminal, create_collection, terminals

__all__ = ["terminals"]

RECOVERY_S_MAX = 10.0
ROUNDS = 4


def test_rapid_kills_of_every_process_cost_seconds(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path / "data")
    terminals.append(terminal)
    terminal.until("Polychrome is ready")
    url = terminal.url + create_collection(terminal.url, "killed")
    row = {"ids": ["a"], "embeddings": [[1.0, 2.0]]}
    httpx.post(f"{url}/add", json=row, timeout=30).raise_for_status()
    for _ in range(ROUNDS):
        for entry in terminal.register().processes:
            with contextlib.suppress(ProcessLookupError):  # not started again yet
                os.kill(entry.pid, signal.SIGKILL)
            time.sleep(0.1)
    killed_s = time.monotonic()

    def works() -> bool:
        written = httpx.post(f"{url}/upsert", json=row, timeout=30).is_success
        found = httpx.post(f"{url}/query", json={"query_embeddings": [[1.0, 2.0]], "n_results": 1}, timeout=30)
        return written and found.is_success and found.json()["ids"] == [["a"]]

    wait_until(works, "a write and a query", 60)
    assert time.monotonic() - killed_s < RECOVERY_S_MAX
    assert terminal.stop() == 0
