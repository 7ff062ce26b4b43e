"""The rows, the queries, and the bodies that go over the wire: the same bytes for both servers."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow.parquet as pq

FIELDS: Final = ("section", "priority", "installed_size", "architecture", "multi_arch", "has_homepage", "maintainer")
NEIGHBOURS: Final = 10


@dataclass(frozen=True)
class Dataset:
    """`name` says in the report what was measured. `vectors` [n, d] and `queries` [q, d] are float32."""

    name: str
    ids: list[str]
    documents: list[str]
    metadatas: list[dict[str, Any]]
    vectors: np.ndarray
    queries: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def write_bodies(self, rows: int, batch: int) -> list[bytes]:
        """Batches as the official clients send them: vectors as base64."""
        return [self.write_body(range(start, min(start + batch, rows))) for start in range(0, rows, batch)]

    def write_body(self, rows: Sequence[int]) -> bytes:
        return orjson.dumps(
            {
                "ids": [self.ids[row] for row in rows],
                "embeddings": [base64.b64encode(self.vectors[row].tobytes()).decode() for row in rows],
                "documents": [self.documents[row] for row in rows],
                "metadatas": [self.metadatas[row] for row in rows],
            }
        )

    def query_bodies(self, **more: Any) -> list[bytes]:
        """One vector each, the nearest ten with documents, metadata and distances."""
        return [
            orjson.dumps(
                {"query_embeddings": [query], "n_results": NEIGHBOURS, **more}, option=orjson.OPT_SERIALIZE_NUMPY
            )
            for query in self.queries
        ]

    def truth(self) -> list[frozenset[str]]:
        """Ids of the true nearest ten of every query."""
        norms = np.einsum("ij,ij->i", self.vectors, self.vectors)
        found: list[frozenset[str]] = []
        for chunk in np.array_split(self.queries, max(1, len(self.queries) // 100)):
            nearest = np.argpartition(norms - 2.0 * chunk @ self.vectors.T, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
            found += [frozenset(self.ids[row] for row in rows) for rows in nearest]
        return found


def debian(directory: Path, rows: int | None) -> Dataset:
    """Real rows: `debian-packages.parquet` and `debian-queries.parquet`."""
    packages = pq.read_table(directory / "debian-packages.parquet")
    packages = packages if rows is None else packages.slice(0, rows)
    queries = pq.read_table(directory / "debian-queries.parquet", columns=["embedding"])
    return Dataset(
        name="Debian packages",
        ids=packages["id"].to_pylist(),
        documents=packages["document"].to_pylist(),
        metadatas=packages.select(FIELDS).to_pylist(),
        vectors=_vectors(packages),
        queries=_vectors(queries),
    )


def synthetic(rows: int, dimension: int, seed: int = 1) -> Dataset:
    """Rows in clusters, with the same fields as the real ones. Easier than those: not to be compared with them."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((200, dimension), dtype=np.float32)

    def near(count: int) -> np.ndarray:
        noise = random.standard_normal((count, dimension), dtype=np.float32)
        vectors = centres[random.integers(0, len(centres), count)] + 0.7 * noise
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    sections = ("libs", "haskell", "doc", "python")
    metadatas = [
        {
            "section": sections[0] if row % 25 else sections[1],
            "priority": "extra" if row % 300 == 0 else "optional",
            "installed_size": int(size),
            "has_homepage": bool(row % 14),
        }
        for row, size in enumerate(random.integers(10, 100_000, rows))
    ]
    documents = [f"package {row} in {sections[row % 4]}" + " editor" * (row % 97 == 0) for row in range(rows)]
    ids = [f"package-{row}" for row in range(rows)]
    return Dataset("synthetic clusters", ids, documents, metadatas, near(rows), near(1000))


def _vectors(table: Any) -> np.ndarray:
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    return np.ascontiguousarray(flat.reshape(len(table), -1).astype(np.float32))
