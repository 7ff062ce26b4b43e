"""Every process of `polychrome up` is stopped and started again while clients are at work: none of them notices."""

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import httpx

from tests.cluster.waiting import wait_until
from tests.polychrome.terminal import Terminal, create_collection, terminals

__all__ = ["terminals"]

START_S_MAX = 60.0


class Client:
    """A client that writes and reads without a pause, over one connection or over a new one for each request."""

    def __init__(self, number: int, url: str, *, keep: bool) -> None:
        self.answered: Counter[str] = Counter()
        self.broken: list[str] = []
        self._number = number
        self._url = url
        self._keep = keep

    def run(self, stop: threading.Event) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as kept:
            turn = 0
            while not stop.is_set():
                turn += 1
                kind = ("upsert", "query", "get", "count")[turn % 4]
                if self._keep:
                    self._ask(kept, kind, turn)
                    continue
                with httpx.Client(base_url=self._url, timeout=60) as fresh:
                    self._ask(fresh, kind, turn)

    def _ask(self, client: httpx.Client, kind: str, turn: int) -> None:
        bodies = {
            "upsert": {"ids": [f"{self._number}-{turn % 50}"], "embeddings": [[1.0, float(turn)]]},
            "query": {"query_embeddings": [[1.0, 2.0]], "n_results": 3},
            "get": {"limit": 3},
        }
        try:
            answer = client.get("/count") if kind == "count" else client.post(f"/{kind}", json=bodies[kind])
        except httpx.HTTPError as error:
            self.broken.append(f"{kind}: {error!r}")
            return
        if answer.is_success:
            self.answered[kind] += 1
        else:
            self.broken.append(f"{kind}: {answer.status_code} {answer.text}")


def _restart(terminal: Terminal, name: str) -> None:
    pid = terminal.pid(name)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: terminal.pid(name) != pid, f"another {name}", START_S_MAX)
    terminal.until(f"{name:<16} ready")


def test_a_rolling_restart_of_every_process_breaks_no_request(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path / "data")
    terminals.append(terminal)
    terminal.until("Polychrome is ready")
    url, stop = terminal.url + create_collection(terminal.url, "busy"), threading.Event()
    clients = [Client(number, url, keep=number % 2 == 0) for number in range(4)]
    threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        for entry in terminal.register().processes:
            _restart(terminal, entry.name)
            before = sum(sum(client.answered.values()) for client in clients)
            done = lambda before=before: sum(sum(c.answered.values()) for c in clients) > before + 20  # noqa: E731
            wait_until(done, f"requests answered after the restart of {entry.name}", 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [client.broken for client in clients] == [[] for _ in clients]
    assert terminal.stop() == 0
