"""`python -m bench.durability`: what a write costs in each durability class.

Single-row upserts by one client and by several, on a log's server with one replica. The bucket is a directory, then an
S3 server behind a proxy that holds back every answer as a distant one would. Latency and throughput, and CPU over all
processes of the server but Redis.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import numpy as np
import orjson
import redis

from bench import cost, load
from bench.servers import Collection, Server, free_port, polychrome
from polychrome.local.process import Process, ProcessSpec
from polychrome.local.redis_server import answers, find_program, redis_server

CLASSES: Final = ("disk", "replicas:1", "bucket")
CLIENTS: Final = (1, 16)
DIMENSION: Final = 384
ROWS: Final = 400
START_S_MAX: Final = 30.0


@contextmanager
def running(spec: ProcessSpec, directory: Path, url: str) -> Iterator[None]:
    """A Redis server that answers."""
    process = Process(spec, directory / f"{spec.name}.log")
    process.start()
    try:
        _wait_for(lambda: answers(url))
        yield
    finally:
        process.kill()


@contextmanager
def replicated_redis(directory: Path) -> Iterator[str]:
    """The log's server, as `polychrome up` starts it, and a replica of it; the URL of the former."""
    first = redis_server(directory / "first")
    there, replica = urlsplit(first.url), free_port()
    folder = directory / "second"
    folder.mkdir(parents=True)
    follow = ("--replicaof", "127.0.0.1", str(there.port), "--masterauth", there.password or "")
    here = ("--bind", "127.0.0.1", "--port", str(replica), "--dir", str(folder), "--save", "")
    spec = ProcessSpec("replica", "redis", (str(find_program()), *here, *follow))
    with running(first.prepare(), directory, first.url), running(spec, directory, f"redis://127.0.0.1:{replica}/0"):
        with redis.Redis.from_url(first.url) as client:
            _wait_for(lambda: client.info("replication").get("slave0", {}).get("state") == "online")
        yield first.url


@contextmanager
def distant_s3(directory: Path, delay_s: float) -> Iterator[str]:
    """An S3 server whose answers take so much longer; its URL."""
    port = free_port()
    environ = os.environ | {
        "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1", "SERVICES": "s3",
        "S3_PERSIST": "1", "S3_DATA_DIR": str(directory),
    }  # fmt: skip
    directory.mkdir(parents=True)
    with (directory.parent / "ministack.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "ministack"], env=environ, stdout=log, stderr=log)
        try:
            _wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}").status_code < 500)
            with delayed(port, delay_s) as proxy:
                yield f"http://127.0.0.1:{proxy}"
        finally:
            server.kill()
            server.wait()


@contextmanager
def delayed(port: int, delay_s: float) -> Iterator[int]:
    """The port of a proxy for a local port that holds back all that comes from there."""
    loop, ready, own = asyncio.new_event_loop(), threading.Event(), free_port()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, after_s: float) -> None:
        while data := await reader.read(1 << 16):
            loop.call_later(after_s, writer.write, data)
        loop.call_later(after_s, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(forward(reader, there_writer, 0.0), forward(there_reader, writer, delay_s))

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", own):
            ready.set()
            await asyncio.Event().wait()

    def run() -> None:
        task = loop.create_task(main())
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(START_S_MAX)
    try:
        yield own
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _wait_for(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + START_S_MAX
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline_s:
            raise TimeoutError("a server did not come up")
        time.sleep(0.05)


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """These variables for processes that are started inside."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def polychrome_over(directory: Path, storage: str, delay_s: float) -> Iterator[Server]:
    """A server over a replicated Redis, and a bucket of this kind: `directory` or `s3`."""
    with ExitStack() as stack:
        changes = {"REDIS_URL": stack.enter_context(replicated_redis(directory / "redis"))}
        if storage == "s3":
            changes |= {
                "AWS_ENDPOINT_URL_S3": stack.enter_context(distant_s3(directory / "s3", delay_s)),
                "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret",
                "POLYCHROME_BUCKET_URL": "s3://bench",
            }  # fmt: skip
        stack.enter_context(environment(changes))
        if storage == "s3":
            subprocess.run([sys.executable, "-m", "polychrome", "create-bucket", "s3://bench"], check=True)
        yield stack.enter_context(polychrome(directory / "data", []))


def requests(collection: Collection, durability: str) -> list[load.Request]:
    vectors = np.random.default_rng(1).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    return [
        load.Request(
            "POST",
            collection.path("upsert"),
            orjson.dumps({"ids": [f"r{n}"], "embeddings": [vector.tolist()], "durability": durability}),
        )
        for n, vector in enumerate(vectors)
    ]


def measure(server: Server, storage: str, seconds: float, runs: int) -> Iterator[str]:
    """A line of a table for each class and number of clients; the classes take turns."""
    collection = server.create("durability")
    work = {name: requests(collection, name) for name in CLASSES}
    for clients in CLIENTS:
        taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in CLASSES}
        for _ in range(runs):
            for name in CLASSES:
                before_s = cost.cpu_s(server.pids())
                done = load.run(load.Work(server.port, work[name], clients, seconds, keep=1))
                cpu_ms = (cost.cpu_s(server.pids()) - before_s) * 1000 / done.count
                taken[name].append((done.latency_ms(0.5), done.latency_ms(0.99), done.per_s, cpu_ms))
        for name in CLASSES:
            p50, p99, per_s, cpu_ms = np.median(np.array(taken[name]), axis=0)
            yield f"| {storage} | {clients} | `{name}` | {p50:.1f} | {p99:.1f} | {per_s:.0f} | {cpu_ms:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.durability", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--delay-ms", type=float, default=50.0, help="added to every answer of the S3 server")
    options = parser.parse_args()
    print("| bucket | clients | class | p50 ms | p99 ms | per second | CPU ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for storage in ("directory", "s3"):
        shown = "directory" if storage == "directory" else f"S3, {options.delay_ms:.0f} ms away"
        with (
            tempfile.TemporaryDirectory(prefix="bench-durability-") as folder,
            polychrome_over(Path(folder), storage, options.delay_ms / 1000) as server,
        ):
            for line in measure(server, shown, options.seconds, options.runs):
                print(line, flush=True)


if __name__ == "__main__":
    main()
