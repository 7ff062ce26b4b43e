"""Where parts of the benchmark play: the servers, a dataset that they were filled with, and how much scale is made.

Runs alternate between the servers, so that a slow moment of the machine hits both.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from typing import Final, TypeVar

from bench import servers
from bench.data import Dataset
from bench.ingest import IngestSample, fill
from bench.inprocess import InProcess
from bench.servers import Collection, Server

SETTLE_S: Final = 3.0
COLLECTION: Final = "bench"

T = TypeVar("T")


@dataclass(frozen=True)
class Scale:
    """`runs` of everything, each of `seconds`; `ingest_runs` of filling a collection with all rows. `rows`,
    `wide_rows`, `many_rows` and `few_rows`: of the real, the 768-dimensional, the large and the small dataset.
    """

    name: str
    runs: int
    ingest_runs: int
    seconds: float
    upserts: int
    collections: int
    beams: Sequence[int]
    clients: Sequence[int]
    rows: int | None
    wide_rows: int
    many_rows: int
    few_rows: int


FULL: Final = Scale(
    name="full",
    runs=3,
    ingest_runs=2,
    seconds=1.2,
    upserts=200,
    collections=1000,
    beams=(10, 20, 40, 80, 160, 320, 640),
    clients=(1, 2, 4, 8, 16, 32, 64),
    rows=None,
    wide_rows=100_000,
    many_rows=1_000_000,
    few_rows=10_000,
)
QUICK: Final = Scale(
    name="quick",
    runs=1,
    ingest_runs=1,
    seconds=0.4,
    upserts=50,
    collections=30,
    beams=(10, 80, 320),
    clients=(1, 8, 32),
    rows=6000,
    wide_rows=3000,
    many_rows=10_000,
    few_rows=3000,
)


@dataclass(frozen=True)
class Setting:
    """The choices of the command line."""

    scale: Scale
    chroma: Path | None
    directory: Path | None
    cache: Path
    up: Sequence[str]
    """Options of `polychrome up`."""


@dataclass
class Stage:
    """`collections` and `filled` (how the filling went) by server; empty on a stage without data. `idle_mib`: memory
    of the servers' processes before anything was asked of them.
    """

    setting: Setting
    servers: Sequence[Server]
    dataset: Dataset
    idle_mib: dict[str, dict[str, float]]
    filled_mib: dict[str, dict[str, float]] = field(default_factory=dict)
    collections: dict[str, Collection] = field(default_factory=dict)
    filled: dict[str, IngestSample] = field(default_factory=dict)
    others: list[Dataset] = field(default_factory=list)
    """Datasets that a part made for itself."""
    _in_process: InProcess | None = None

    @property
    def scale(self) -> Scale:
        return self.setting.scale

    @property
    def in_process(self) -> InProcess:
        if self._in_process is None:
            self._in_process = InProcess.open(self.dataset, self.setting.cache)
        return self._in_process

    def alternate(self, runs: int, once: Callable[[Server, int], T]) -> dict[str, list[T]]:
        """The results of each run, by server. `once` is told the number of the run."""
        found: dict[str, list[T]] = {server.name: [] for server in self.servers}
        for number in range(runs):
            for server in self.servers:
                found[server.name].append(once(server, number))
        return found

    def fill(self) -> None:
        for server in self.servers:
            say(f"  {server.name}: {len(self.dataset):,} rows")
            self.collections[server.name], self.filled[server.name] = fill(server, COLLECTION, self.dataset)
        sleep(SETTLE_S)
        self.filled_mib = {server.name: server.memory_mib() for server in self.servers}

    def revive(self) -> None:
        """Start what has ended by itself, on what it left."""
        for server in self.servers:
            if server.ended():
                say(f"  {server.name} is started again; the end of its log:\n{server.log_end()}")
                server.start()


@contextmanager
def stage(setting: Setting, dataset: Dataset, *, filled: bool, with_chroma: bool) -> Iterator[Stage]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=setting.directory)))
        running = [stack.enter_context(servers.polychrome(directory / "polychrome", setting.up))]
        if with_chroma and setting.chroma is not None:
            running.insert(0, stack.enter_context(servers.chroma(setting.chroma, directory / "chroma")))
        sleep(SETTLE_S)
        found = Stage(setting, running, dataset, {server.name: server.memory_mib() for server in running})
        if filled:
            found.fill()
        yield found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
