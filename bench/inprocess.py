"""hnswlib in this process, with the graph's parameters of both servers: what a query costs at the least."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hnswlib
import numpy as np

from bench.data import Dataset
from bench.operations import NEIGHBOURS, Sample
from shared.vectors.arrays import Vectors

NEIGHBORS_MAX: Final = 16
EF_CONSTRUCTION: Final = 100
EF_SEARCH: Final = 100
_BUILD_THREADS: Final = 2


@dataclass
class InProcess:
    """A graph over all vectors of a dataset. One thread, one vector at a time."""

    index: hnswlib.Index
    dataset: Dataset

    @classmethod
    def open(cls, dataset: Dataset, cache: Path) -> "InProcess":
        """The graph is kept from run to run under a name that its vectors give."""
        path = cache / f"hnswlib-{dataset.key}-{_digest(dataset.vectors)}.bin"
        index = hnswlib.Index(space="l2", dim=dataset.vectors.shape[1])
        if path.exists():
            index.load_index(str(path), max_elements=len(dataset))
        else:
            index.init_index(len(dataset), M=NEIGHBORS_MAX, ef_construction=EF_CONSTRUCTION)
            index.add_items(dataset.vectors, num_threads=_BUILD_THREADS)
            cache.mkdir(parents=True, exist_ok=True)
            index.save_index(str(path))
        return cls(index, dataset)

    def measure(self, seconds: float, ef_search: int = EF_SEARCH) -> Sample:
        self.index.set_ef(ef_search)
        latencies_s: list[float] = []
        queries = self.dataset.queries
        began_s, cpu_before_s = time.perf_counter(), time.process_time()
        while time.perf_counter() < began_s + seconds:
            sent_s = time.perf_counter()
            number = len(latencies_s) % len(queries)
            self.index.knn_query(queries[number : number + 1], k=NEIGHBOURS, num_threads=1)
            latencies_s.append(time.perf_counter() - sent_s)
        cpu_s, elapsed_s = time.process_time() - cpu_before_s, time.perf_counter() - began_s
        p50_ms, p99_ms = np.quantile(latencies_s, (0.5, 0.99)) * 1000
        return Sample(float(p50_ms), float(p99_ms), len(latencies_s) / elapsed_s, cpu_s / len(latencies_s) * 1000)

    def recall(self, truth: list[frozenset[str]], ef_search: int = EF_SEARCH) -> float:
        self.index.set_ef(ef_search)
        labels, _ = self.index.knn_query(self.dataset.queries[: len(truth)], k=NEIGHBOURS)
        found = [
            len(ids.intersection(self.dataset.ids[row] for row in rows))
            for ids, rows in zip(truth, labels, strict=True)
        ]
        return float(np.mean(found)) / NEIGHBOURS


def _digest(vectors: Vectors) -> str:
    step = max(1, len(vectors) // 1000)
    return hashlib.sha256(np.ascontiguousarray(vectors[::step]).tobytes() + str(vectors.shape).encode()).hexdigest()[
        :12
    ]
