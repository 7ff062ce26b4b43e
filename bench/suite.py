"""What is measured, in which order. Runs alternate between the two servers, so that a slow moment of the machine
hits both.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.data import Dataset
from bench.ingest import IngestSample, ingest
from bench.load import Generator
from bench.operations import Operation, Sample, measure, reads, single_row_upserts
from bench.report import Figure
from bench.servers import Server

COLLECTION = "bench"
BATCH_ROWS = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    runs: int
    seconds: float
    ingest_rows: int
    upserts: int


@dataclass(frozen=True)
class Suite:
    """`servers`: Chroma, Polychrome."""

    servers: Sequence[Server]
    load: Generator
    dataset: Dataset
    effort: Effort

    def run(self) -> list[Figure]:
        empty_mib = self._memory_mib()
        figures = [*self._ingest_part(clients=1), *self._ingest_part(clients=4), *self._ingest_everything()]
        full_mib = self._memory_mib()
        ids = {server.name: server.describe(COLLECTION)["id"] for server in self.servers}
        for operation in [*reads(self.dataset), single_row_upserts(self.dataset, self.effort.upserts)]:
            figures += self._operation(operation, ids)
        return [
            *figures,
            _memory("memory, all processes, empty", empty_mib),
            _memory(f"memory with {len(self.dataset):,} rows indexed", full_mib),
            _memory("memory after the reads", self._memory_mib()),
        ]

    def _ingest_part(self, clients: int) -> list[Figure]:
        rows = min(len(self.dataset), self.effort.ingest_rows)
        bodies = self.dataset.write_bodies(rows, BATCH_ROWS)

        def once(server: Server) -> IngestSample:
            sample = ingest(server, self.load, bodies, rows, clients, f"{COLLECTION}-part")
            server.delete(f"{COLLECTION}-part")
            return sample

        name = f"ingest {rows:,} rows, {clients} clients"
        return _ingest_figures(name, self._alternate(name, self.effort.runs, once), targets=True)

    def _ingest_everything(self) -> list[Figure]:
        rows = len(self.dataset)
        bodies = self.dataset.write_bodies(rows, BATCH_ROWS)
        name = f"ingest all {rows:,} rows, 4 clients"
        samples = self._alternate(name, 1, lambda server: ingest(server, self.load, bodies, rows, 4, COLLECTION))
        return _ingest_figures(name, samples, targets=False)

    def _operation(self, operation: Operation, ids: dict[str, str]) -> list[Figure]:
        def once(server: Server) -> Sample:
            return measure(server, self.load, ids[server.name], operation, self.effort.seconds)

        return _operation_figures(operation, self._alternate(operation.name, self.effort.runs, once))

    def _alternate(self, what: str, runs: int, once: Callable[[Server], T]) -> tuple[list[T], list[T]]:
        """Samples of Chroma, samples of Polychrome."""
        print(f"  {what} ...", file=sys.stderr, flush=True)
        chroma, polychrome = self.servers
        pairs = [(once(chroma), once(polychrome)) for _ in range(runs)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def _memory_mib(self) -> list[float]:
        return [server.memory_mib() for server in self.servers]


def _ingest_figures(
    name: str, samples: tuple[list[IngestSample], list[IngestSample]], *, targets: bool
) -> list[Figure]:
    def figure(
        what: str, unit: str, pick: Callable[[IngestSample], float], higher: bool, target: float | None
    ) -> Figure:
        chroma, polychrome = ([pick(sample) for sample in one] for one in samples)
        return Figure(f"{name}: {what}", unit, chroma, polychrome, higher, target if targets else None)

    return [
        figure("acknowledged", "rows/s", lambda s: s.acknowledged_per_s, True, 10.0),
        figure("indexed", "rows/s", lambda s: s.indexed_per_s, True, 2.0),
        figure("CPU", "ms/row", lambda s: s.cpu_ms_per_row, False, None),
    ]


def _operation_figures(operation: Operation, samples: tuple[list[Sample], list[Sample]]) -> list[Figure]:
    is_plain_query = operation.truth is not None
    is_upsert = operation.action == "upsert"

    def figure(
        what: str, unit: str, pick: Callable[[Sample], float], higher: bool, target: float | None = None
    ) -> Figure:
        chroma, polychrome = ([pick(sample) for sample in one] for one in samples)
        return Figure(
            f"{operation.name}: {what}", unit, chroma, polychrome, higher, target, compared=what != "recall@10"
        )

    figures = [
        figure("p50", "ms", lambda s: s.p50_ms, False, 5.0 if is_upsert else None),
        figure("p99", "ms", lambda s: s.p99_ms, False),
        figure("throughput", "1/s", lambda s: s.per_s, True),
        figure("CPU", "ms", lambda s: s.cpu_ms, False, 2.0 if is_plain_query else None),
    ]
    if is_plain_query:
        figures.append(figure("recall@10", "", lambda s: s.recall or 0.0, True))
    return figures


def _memory(name: str, mib: Sequence[float]) -> Figure:
    return Figure(name, "MiB", mib[:1], mib[1:], higher_is_better=False)
