"""The part in which one tenant works while another floods the servers: what the first one's latency becomes.

The victim is one client that queries and upserts real rows in turn. It is measured alone, then beside each flood of
another tenant, each of which has as many clients as it says. Floods may be refused; the victim may not.
"""

import http.client
import itertools
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any, Final

import httpx
import numpy as np
import orjson

from bench.data import Dataset
from bench.fairness_report import ALONE, OPERATIONS
from bench.ingest import BATCH_ROWS
from bench.load import Request
from bench.series import POLYCHROME, Series
from bench.servers import Collection, Server
from bench.stage import Stage, say

NOISY: Final = "noisy"
COLLECTIONS: Final = f"/api/v2/tenants/{NOISY}/databases/default_database/collections"
SECONDS_PER_RUN_S: Final = 8.0
"""Seconds that the victim is measured beside a flood, for each second of the scale."""
FLOOD_LEAD_S: Final = 0.5
"""Time that a flood runs before the victim is measured, in seconds."""
SETTLE_S: Final = 1.0
LARGE_BODY_BYTES: Final = 16 * 1024 * 1024
TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Flood:
    """`clients` of them send `requests` over and over. `pause_s`: between the halves of a body, for slow ones."""

    name: str
    clients: int
    requests: Sequence[Request]
    pause_s: float = 0.0


@dataclass(frozen=True)
class VictimSample:
    """Latencies in seconds, and how many answers were 4xx, 5xx or none."""

    query_s: list[float]
    upsert_s: list[float]
    errors: int


def fairness(stage: Stage) -> list[Series]:
    """The victim alone, beside each flood, and alone again: later runs tell whether the machine has changed."""
    server, data = stage.servers[0], stage.dataset
    victim = stage.collections[server.name]
    seconds = stage.scale.seconds * SECONDS_PER_RUN_S
    requests = [*itertools.chain.from_iterable(zip(_queries(victim, data), _upserts(victim, data), strict=False))]
    by_line: dict[str, list[VictimSample]] = {ALONE: [measure(server, requests, seconds)]}
    for flood in floods(server, data):
        say(f"  {flood.name}, {flood.clients} clients")
        by_line[flood.name] = [_beside(server, requests, seconds, flood)]
        time.sleep(SETTLE_S)
    by_line[ALONE].append(measure(server, requests, seconds))
    return [series for line, found in by_line.items() for series in _series(data.key, line, found)]


def measure(server: Server, requests: Sequence[Request], seconds: float) -> VictimSample:
    """The sample of one client that sends requests for so long: even ones are queries, odd ones upserts."""
    latencies_s: tuple[list[float], list[float]] = ([], [])
    errors = 0
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    until_s = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() >= until_s:
            connection.close()
            return VictimSample(*latencies_s, errors)
        began_s = time.perf_counter()
        errors += _send(connection, requests[number % len(requests)]) >= 300
        latencies_s[number % 2].append(time.perf_counter() - began_s)
    raise AssertionError("counting ends never")


def _beside(server: Server, requests: Sequence[Request], seconds: float, flood: Flood) -> VictimSample:
    """The victim's sample while a process of its own floods the server. Raises RuntimeError when nothing of the flood
    was answered.
    """
    context = multiprocessing.get_context("fork")
    stop, (receiver, sender) = context.Event(), context.Pipe(duplex=False)
    process = context.Process(target=_pour, args=(server.port, flood, stop, sender), daemon=True)
    process.start()
    try:
        time.sleep(FLOOD_LEAD_S)
        found = measure(server, requests, seconds)
        stop.set()
        answers: Counter[int] = receiver.recv() if receiver.poll(2 * TIMEOUT_S) else Counter()
    finally:
        process.kill()
        process.join()
    say(f"   answers to the flood: {dict(sorted(answers.items()))}")
    if not answers:
        raise RuntimeError(f"nothing of {flood.name} was answered")
    return found


def _pour(port: int, flood: Flood, stop: Event, answers: Connection) -> None:
    statuses: Counter[int] = Counter()

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        for number in itertools.count(first, flood.clients):
            if stop.is_set():
                return
            statuses[_send(connection, flood.requests[number % len(flood.requests)], flood.pause_s)] += 1

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(flood.clients)]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(TIMEOUT_S)
    answers.send(statuses)


def _send(connection: http.client.HTTPConnection, request: Request, pause_s: float = 0.0) -> int:
    """The status of the answer, which is read to its end; 599 for none. The connection is opened again then."""
    headers = {"content-type": "application/json", "content-length": str(len(request.body))}
    try:
        if pause_s:
            connection.putrequest(request.method, request.path)
            for name, value in headers.items():
                connection.putheader(name, value)
            half = len(request.body) // 2
            connection.endheaders(request.body[:half])
            time.sleep(pause_s)
            connection.send(request.body[half:])
        else:
            connection.request(request.method, request.path, request.body, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 599
    return answer.status


def floods(server: Server, data: Dataset) -> list[Flood]:
    """Floods of a tenant with a collection of its own, which has the victim's rows."""
    httpx.post(f"{server.url}/api/v2/tenants", json={"name": NOISY}).raise_for_status()
    databases = f"{server.url}/api/v2/tenants/{NOISY}/databases"
    httpx.post(databases, json={"name": "default_database"}).raise_for_status()
    created = httpx.post(f"{server.url}{COLLECTIONS}", json={"name": NOISY})
    created.raise_for_status()
    path = f"{COLLECTIONS}/{created.json()['id']}"
    for body in data.write_bodies(range(len(data)), BATCH_ROWS):
        httpx.post(f"{server.url}{path}/add", content=body, timeout=TIMEOUT_S).raise_for_status()
    some = data.queries[:50].tolist()
    everything = {"include": ["documents", "metadatas", "embeddings"]}
    deep: dict[str, Any] = {"installed_size": {"$gt": 1}}
    for number in range(6):
        deep = {"$and": [{"$or": [deep, {"installed_size": {"$lt": number}}]}, {"installed_size": {"$ne": -number}}]}
    regexes = {"$or": [{"$regex": f"[a-z]+{number}.*lib"} for number in range(16)]}
    many = [{"name": f"many-{number}"} for number in range(2000)]
    padded = data.write_body([0]).ljust(LARGE_BODY_BYTES)
    batches = [orjson.loads(body) for body in data.write_bodies(range(len(data)), 300)]

    def posts(action: str, *bodies: Any) -> list[Request]:
        return [Request("POST", f"{path}/{action}", orjson.dumps(body)) for body in bodies]

    return [
        Flood("queries", 16, posts("query", *({"query_embeddings": [one], "n_results": 10} for one in some))),
        Flood("queries of 50 vectors", 8, posts("query", {"query_embeddings": some, "n_results": 100})),
        Flood("gets of everything", 8, posts("get", everything)),
        Flood("filters of many levels", 8, posts("get", {"where": deep, "limit": 100})),
        Flood("regexes", 8, posts("get", {"where_document": regexes, "limit": 10})),
        Flood("large bodies", 8, [Request("POST", f"{path}/upsert", padded)]),
        Flood("slow bodies", 64, [Request("POST", f"{path}/upsert", padded[: 1024 * 1024])], pause_s=2.0),
        Flood("creations of collections", 8, [Request("POST", COLLECTIONS, orjson.dumps(one)) for one in many]),
        Flood("writes to be compacted", 8, posts("upsert", *batches)),
    ]


def _queries(collection: Collection, data: Dataset) -> list[Request]:
    bodies = ({"query_embeddings": [one], "n_results": 10} for one in data.queries[:500].tolist())
    return [Request("POST", collection.path("query"), orjson.dumps(body)) for body in bodies]


def _upserts(collection: Collection, data: Dataset) -> list[Request]:
    return [Request("POST", collection.path("upsert"), data.write_body([row])) for row in range(500)]


def _series(data: str, line: str, found: Sequence[VictimSample]) -> Iterator[Series]:
    errors = [float(one.errors) for one in found]
    for operation in OPERATIONS:
        latencies_s = [one.query_s if operation == "query" else one.upsert_s for one in found]
        measured = {
            "p50_ms": [float(np.quantile(values, 0.5) * 1000) for values in latencies_s],
            "p99_ms": [float(np.quantile(values, 0.99) * 1000) for values in latencies_s],
            "errors": errors,
        }
        for quantity, values in measured.items():
            yield Series(data, f"{line}: {operation}", quantity, {POLYCHROME: values}, clients=1)
