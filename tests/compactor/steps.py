"""Made-up rows, and processes that die or wait at a step of their work."""

from __future__ import annotations

import asyncio
import random

from compactor.checkpoints import AnyStep, Checkpoints
from tests.compactor.conftest import DIMENSION, Row


def row(rng: random.Random, number: int = 0) -> Row:
    vector = [rng.choice([-1.0, 0.5, 2.0]) + number for _ in range(DIMENSION)]
    document = rng.choice([None, "", "text", "long " * 50])
    metadata = rng.choice([None, {"a": 1}, {"b": "x", "a": None}, {"c": [1, 2]}, {"f": 2.0}])
    return vector, document, metadata, rng.choice([None, "u://1"])


class Stop(Exception):
    """The process dies here."""


class DiesAt(Checkpoints):
    def __init__(self, step: AnyStep) -> None:
        self.step = step

    async def reached(self, step: AnyStep, collection: str, shard: int) -> None:
        if step is self.step:
            raise Stop


class WaitsAt(Checkpoints):
    """Stops at a step until `go` is set; `there` is set meanwhile."""

    def __init__(self, step: AnyStep) -> None:
        self.step = step
        self.there = asyncio.Event()
        self.go = asyncio.Event()

    async def reached(self, step: AnyStep, collection: str, shard: int) -> None:
        if step is self.step:
            self.there.set()
            await self.go.wait()
