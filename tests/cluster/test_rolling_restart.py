"""Every process of a cluster is restarted in turn while clients read long answers slowly: no answer is cut."""

from __future__ import annotations

import itertools
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest

from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.waiting import wait_until

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
ROWS = 4000
DIMENSION = 128
BATCH_ROWS = 1000
DOCUMENT = "word " * 600
BYTES_PER_S = 1_600_000
"""How fast each client reads: the texts are 12 MB, and take 7 seconds."""

SMALL_BUFFER = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)]
"""So that the kernel holds little of an answer for its client: the frontend has to keep it until it is read."""

DRAIN_S = 90
COLUMNS = ("embeddings", "documents")
"""What a client reads of every record: numbers come in chunks as they are written, texts as a whole."""


@dataclass
class Reader:
    """A client that reads the whole collection again and again, slowly, from whichever frontend takes its request."""

    urls: list[str]
    path: str
    column: str
    stop: threading.Event
    whole: int = 0
    refused: int = 0
    reading_from: str | None = None
    faults: list[str] = field(default_factory=list)

    def run(self) -> None:
        for url in itertools.cycle(self.urls):
            if self.stop.is_set():
                return
            transport = httpx.HTTPTransport(socket_options=SMALL_BUFFER)
            with httpx.Client(base_url=url, transport=transport, timeout=60) as client:
                self._read_once(client)

    def _read_once(self, client: httpx.Client) -> None:
        request = client.build_request("POST", f"{self.path}/get", json={"include": [self.column]})
        try:
            response = client.send(request, stream=True)
        except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError):
            self.refused += 1  # nothing was answered: another frontend is asked
            time.sleep(0.05)
            return
        self.reading_from = str(client.base_url)
        try:
            body = _slowly(response)
        except httpx.HTTPError as error:
            self.faults.append(f"cut: {error!r}")
            return
        finally:
            self.reading_from = None
            response.close()
        if response.status_code != 200:
            self.faults.append(f"{response.status_code}: {body[:200]!r}")
        elif len(orjson.loads(body)[self.column]) != ROWS:
            self.faults.append("not all rows")
        else:
            self.whole += 1


def _slowly(response: httpx.Response) -> bytes:
    began_s, body = time.monotonic(), bytearray()
    for data in response.iter_raw(64 * 1024):
        body += data
        time.sleep(max(0.0, began_s + len(body) / BYTES_PER_S - time.monotonic()))
    return bytes(body)


def _filled(url: str) -> str:
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIMENSION), np.float32)
    with httpx.Client(base_url=url, timeout=60) as client:
        created = client.post(COLLECTIONS, json={"name": "long-answers"})
        path = f"{COLLECTIONS}/{created.raise_for_status().json()['id']}"
        for start in range(0, ROWS, BATCH_ROWS):
            ids = [f"row-{number}" for number in range(start, start + BATCH_ROWS)]
            rows = vectors[start : start + BATCH_ROWS].tolist()
            body = {"ids": ids, "embeddings": rows, "documents": [DOCUMENT] * BATCH_ROWS}
            client.post(f"{path}/add", json=body).raise_for_status()
    return path


def _restart(cluster: Cluster, *names: str) -> None:
    """Stops the processes as an orderly restart does, all at once, and starts them again."""
    processes = [cluster.process(name) for name in names]
    for process in processes:
        process.send(signal.SIGTERM)
    for process in processes:
        assert process.wait(DRAIN_S), f"{process.spec.name} does not stop: {process.log_tail()}"
        process.start()
    cluster.wait_ready(*processes)


def _wait_for_a_beginning(readers: list[Reader], url: str) -> None:
    """Until some client begins to read an answer from the frontend at `url`."""
    wait_until(lambda: not all(_reads_from(reader, url) for reader in readers), "a client between two answers")
    before = {id(reader) for reader in readers if _reads_from(reader, url)}
    begun = lambda: any(_reads_from(reader, url) and id(reader) not in before for reader in readers)  # noqa: E731
    wait_until(begun, "the beginning of an answer")


def _reads_from(reader: Reader, url: str) -> bool:
    return reader.reading_from == url


@pytest.mark.timeout(400)
def test_a_rolling_restart_under_slow_readers_of_long_answers_cuts_none(tmp_path: Path) -> None:
    environ = {"POLYCHROME_DRAIN_TIMEOUT_S": str(DRAIN_S)}
    with ClusterBuilder(tmp_path, frontends=2, query_workers=2, environ=environ).start() as cluster:
        path, stop = _filled(cluster.url), threading.Event()
        both_ways = (cluster.urls, cluster.urls[::-1])
        readers = [Reader(urls, path, column, stop) for urls in both_ways for column in COLUMNS]
        threads = [threading.Thread(target=reader.run) for reader in readers]
        for thread in threads:
            thread.start()
        try:
            for number, url in enumerate(cluster.urls, 1):
                _wait_for_a_beginning([reader for reader in readers if reader.column == "documents"], url)
                _restart(cluster, f"queryworker-{number}", f"frontend-{number}")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert [reader.faults for reader in readers] == [[] for _ in readers]
        assert all(reader.whole for reader in readers)
