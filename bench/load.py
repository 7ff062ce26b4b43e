"""The load generator: a closed loop of n clients over plain HTTP, in a process of its own whose CPU is not counted."""

import asyncio
import itertools
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
import uvloop

REQUEST_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Work:
    """What to send to one URL. `seconds`: go round the bodies for that long; None: each body once."""

    method: str
    url: str
    bodies: Sequence[bytes]
    clients: int
    seconds: float | None = None
    keep_answers: bool = False


@dataclass(frozen=True)
class Done:
    """`latencies_s` in the order of completion; `answers` by the number of the body."""

    elapsed_s: float
    latencies_s: np.ndarray
    answers: dict[int, bytes]

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.elapsed_s

    def latency_ms(self, quantile: float) -> float:
        return float(np.quantile(self.latencies_s, quantile) * 1000)


class Generator:
    """Hands work to the other process and waits for it."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def run(self, work: Work) -> Done:
        return self._pool.submit(_run, work).result()


@contextmanager
def generator() -> Iterator[Generator]:
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield Generator(pool)


def _run(work: Work) -> Done:
    return uvloop.run(_generate(work))


async def _generate(work: Work) -> Done:
    latencies_s: list[float] = []
    answers: dict[int, bytes] = {}
    turns: Iterator[tuple[int, bytes]] = iter(enumerate(work.bodies))
    if work.seconds is not None:
        turns = itertools.cycle(enumerate(work.bodies))
    headers = {"content-type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=work.clients)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        began_s = time.perf_counter()
        stop_s = began_s + (work.seconds if work.seconds is not None else float("inf"))

        async def client() -> None:
            while time.perf_counter() < stop_s and (turn := next(turns, None)) is not None:
                number, body = turn
                sent_s = time.perf_counter()
                answer = await _send(session, work, body)
                latencies_s.append(time.perf_counter() - sent_s)
                if work.keep_answers:
                    answers[number] = answer

        await asyncio.gather(*(client() for _ in range(work.clients)))
        elapsed_s = time.perf_counter() - began_s
    return Done(elapsed_s, np.array(latencies_s), answers)


async def _send(session: aiohttp.ClientSession, work: Work, body: bytes) -> bytes:
    arguments: dict[str, Any] = {"data": body} if work.method == "POST" else {}
    async with session.request(work.method, work.url, **arguments) as response:
        answer = await response.read()
        if response.status >= 300:
            raise RuntimeError(f"{work.url}: {response.status} {answer[:500].decode(errors='replace')}")
        return answer
