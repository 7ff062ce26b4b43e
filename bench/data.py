"""The rows, the queries, and the bodies that go over the wire: the same bytes for both servers."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from shared.vectors.arrays import AnyArray, Int64Array, Mask, SquaredNorms, Vector, Vectors

FIELDS: Final = ("section", "priority", "installed_size", "architecture", "multi_arch", "has_homepage", "maintainer")


@dataclass(frozen=True)
class Dataset:
    """`key` names it in results, `title` on the page. `vectors` [n, d] and `queries` [q, d] are float32."""

    key: str
    title: str
    ids: list[str]
    documents: list[str]
    metadatas: list[dict[str, Any]]
    vectors: Vectors
    queries: Vectors

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def columns(self) -> dict[str, AnyArray]:
        """The metadata by field, for filters to be counted with."""
        return {key: np.array([metadata[key] for metadata in self.metadatas]) for key in self.metadatas[0]}

    @cached_property
    def text(self) -> pa.Array:
        return pa.array(self.documents)

    @cached_property
    def row_of(self) -> dict[str, int]:
        return {record_id: row for row, record_id in enumerate(self.ids)}

    @cached_property
    def _half_norms(self) -> SquaredNorms:
        return np.asarray(np.einsum("ij,ij->i", self.vectors, self.vectors) / 2, dtype=np.float32)

    def nearest(self, query: Vector, k: int, mask: Mask | None = None) -> frozenset[str]:
        """Ids of the true nearest k (squared L2) among the rows of the mask: all of them when they are fewer."""
        rows = None if mask is None else np.flatnonzero(mask)
        vectors, norms = (
            (self.vectors, self._half_norms) if rows is None else (self.vectors[rows], self._half_norms[rows])
        )
        distances = norms - vectors @ query
        nearest = np.argpartition(distances, k)[:k] if len(distances) > k else np.arange(len(distances))
        return frozenset(self.ids[row] for row in (nearest if rows is None else rows[nearest]))

    def all_nearest(self, k: int, queries: int | None = None) -> list[frozenset[str]]:
        """The dataset's first so many queries, without a mask."""
        found: list[frozenset[str]] = []
        wanted = self.queries[:queries]
        for chunk in np.array_split(wanted, max(1, len(wanted) * len(self) // 20_000_000)):
            nearest = np.argpartition(self._half_norms - chunk @ self.vectors.T, k, axis=1)[:, :k]
            found += [frozenset(self.ids[row] for row in rows) for rows in nearest]
        return found

    def write_bodies(self, rows: Sequence[int], batch: int) -> list[bytes]:
        """Batches as the official clients send them: vectors as base64."""
        return [self.write_body(rows[at : at + batch]) for at in range(0, len(rows), batch)]

    def write_body(self, rows: Sequence[int]) -> bytes:
        return orjson.dumps(
            {
                "ids": [self.ids[row] for row in rows],
                "embeddings": [base64.b64encode(self.vectors[row].tobytes()).decode() for row in rows],
                "documents": [self.documents[row] for row in rows],
                "metadatas": [self.metadatas[row] for row in rows],
            }
        )

    def head(self, key: str, rows: int) -> "Dataset":
        """The first rows as a dataset of their own."""
        return Dataset(
            key,
            f"the first {rows:,} of them",
            self.ids[:rows],
            self.documents[:rows],
            self.metadatas[:rows],
            self.vectors[:rows],
            self.queries,
        )


def debian(directory: Path, rows: int | None) -> Dataset:
    """Real rows: `debian-packages.parquet` and `debian-queries.parquet`."""
    packages = pq.read_table(directory / "debian-packages.parquet")
    packages = packages if rows is None else packages.slice(0, rows)
    queries = pq.read_table(directory / "debian-queries.parquet", columns=["embedding"])
    return Dataset(
        key="real",
        title="Debian packages, real text, metadata and embeddings",
        ids=packages["id"].to_pylist(),
        documents=packages["document"].to_pylist(),
        metadatas=packages.select(FIELDS).to_pylist(),
        vectors=_vectors(packages),
        queries=_vectors(queries),
    )


def synthetic(key: str, rows: int, dimension: int, seed: int = 1) -> Dataset:
    """Made-up rows with the same fields as the real ones.

    The vectors lie in clusters on a curved sheet of few dimensions, a little noise around it, as embeddings of text do:
    independent noise in every dimension would make all rows of a cluster equally far, and recall meaningless.
    """
    random = np.random.default_rng(seed)
    latent = 24
    centres = random.standard_normal((1000, latent), dtype=np.float32)
    first = random.standard_normal((latent, dimension), dtype=np.float32) / np.sqrt(latent)
    second = random.standard_normal((latent, dimension), dtype=np.float32) / np.sqrt(latent)

    def near(count: int) -> Vectors:
        vectors = np.empty((count, dimension), dtype=np.float32)
        for at in range(0, count, 50_000):
            size = min(50_000, count - at)
            place = centres[random.integers(0, len(centres), size)]
            place = place + 0.6 * random.standard_normal((size, latent), dtype=np.float32)
            chunk = place @ first + np.sin(2.0 * (place @ second))
            chunk += 0.1 * random.standard_normal((size, dimension), dtype=np.float32)
            vectors[at : at + size] = chunk / np.linalg.norm(chunk, axis=1, keepdims=True)
        return vectors

    documents = _made_up_texts(random, rows)
    return Dataset(
        key,
        f"made-up rows in clusters, {dimension} dimensions",
        [f"row-{row}" for row in range(rows)],
        documents,
        _made_up_metadatas(random, rows),
        near(rows),
        near(1500),
    )


def _made_up_metadatas(random: np.random.Generator, rows: int) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {
        "section": [f"section-{number}" for number in _frequencies(random, rows, 58, 1.0)],
        "priority": ["extra" if extra else "optional" for extra in random.random(rows) < 0.005],
        "installed_size": np.exp(random.normal(5.5, 2.2, rows)).astype(np.int64).tolist(),
        "architecture": ["amd64" if amd64 else "all" for amd64 in random.random(rows) < 0.51],
        "multi_arch": [("no", "same", "foreign")[number] for number in random.integers(0, 3, rows)],
        "has_homepage": (random.random(rows) < 0.93).tolist(),
        "maintainer": [f"maintainer {number}" for number in _frequencies(random, rows, 2000, 0.9)],
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _made_up_texts(random: np.random.Generator, rows: int) -> list[str]:
    starts, ends = ("ba", "co", "di", "fe", "gu", "la", "mo", "ni"), ("r", "s", "n", "l", "x", "t", "ve", "ke", "do")
    words = [a + e + b + f for a in starts for e in ends for b in starts for f in ends]
    chosen = np.array(words)[_frequencies(random, rows * 16, len(words), 0.8)].reshape(rows, 16)
    return [f"{row}: {' '.join(texts)}" for row, texts in enumerate(chosen.tolist())]


def _frequencies(random: np.random.Generator, count: int, values: int, exponent: float) -> Int64Array:
    """Numbers below `values`, the smaller the more frequent: by Zipf's law."""
    shares = 1.0 / np.arange(1, values + 1) ** exponent
    return np.searchsorted(np.cumsum(shares / shares.sum()), random.random(count)).clip(0, values - 1)


def _vectors(table: Any) -> Vectors:
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    return np.ascontiguousarray(flat.reshape(len(table), -1).astype(np.float32))
