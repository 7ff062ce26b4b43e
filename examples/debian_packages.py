"""The catalogue of Debian 12 (61,666 packages, 384 dimensions) through the official Python client.

    python examples/debian_packages.py debian-packages.parquet [--url http://127.0.0.1:8000]

Loads all rows with their documents, metadata and embeddings and asks the 1,500 queries that lie beside them
(`debian-queries.parquet`): while part of the rows is in the log alone, while the rest is being compacted (as many
as fit into that time), and when all is indexed. Prints recall@10 against an exact scan by numpy, and checks that
filtered reads count exactly what numpy counts. Exits with 1 when recall is under 0.97 or a count differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

try:
    import chromadb
    import httpx
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from chromadb.api import ClientAPI
    from chromadb.config import Settings
    from chromadb.errors import ChromaError
    from tqdm import tqdm

    MISSING = None
except ModuleNotFoundError as error:  # told after --help
    MISSING = error.name

COLLECTION: Final = "debian-packages"
FIELDS: Final = (
    *("section", "priority", "installed_size", "maintainer", "architecture"),
    *("source", "multi_arch", "has_homepage", "version"),
)
RECALL_MIN: Final = 0.97
NEIGHBOURS: Final = 10
BATCH_ROWS: Final = 1000
FIRST_ROWS: Final = 8000
"""Loaded and queried at once, before a compactor has had time for them."""
INDEX_TIMEOUT_S: Final = 900.0
GLANCE_EVERY: Final = 25

Where = dict[str, Any]


@dataclass(frozen=True)
class Catalogue:
    """The packages: rows of metadata and documents, and their vectors [n, 384] float32."""

    table: pa.Table
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.vectors)

    def head(self, rows: int) -> Catalogue:
        return Catalogue(self.table.slice(0, rows), self.vectors[:rows])

    def column(self, name: str) -> np.ndarray:
        return self.table[name].to_numpy()


@dataclass(frozen=True)
class Recall:
    """Mean share of the true nearest `NEIGHBOURS` that the answers held."""

    value: float
    queries: int


@dataclass(frozen=True)
class Filter:
    """A filter in Chroma's words, and the rows [n] bool that numpy says match it."""

    where: Where | None
    document: Where | None
    matching: np.ndarray


def main() -> int:
    options = _options()
    try:
        return measure(options)
    except Exception as error:
        if not isinstance(error, ChromaError | httpx.HTTPError) and type(error) is not Exception:
            raise  # the client makes a plain one of a status that it has no class for
        sys.exit(f"{options.url}: {error}")


def measure(options: argparse.Namespace) -> int:
    packages = read(options.packages, options.rows)
    queries = read(options.packages.with_name("debian-queries.parquet"), None).vectors
    client = connect(options.url)
    collection = fresh_collection(client)
    first, total = min(FIRST_ROWS, len(packages)), len(packages)

    load(collection, packages, range(first), "loading")
    part = packages.head(first)
    before = recall(collection, part, queries, "querying the log", lambda: indexed_operations(client, collection) == 0)
    seconds = load(collection, packages, range(first, total), "loading")
    loaded_s = time.monotonic()
    during = recall(collection, packages, queries, "meanwhile", lambda: indexed_operations(client, collection) < total)
    wait_until_indexed(client, collection, total)
    indexed_s = time.monotonic() - loaded_s
    after = recall(collection, packages, queries, "querying the index", lambda: True)

    print(f"acknowledged    {(total - first) / seconds:,.0f} rows/s, indexed {indexed_s:.1f} s after the last one")
    recalls = {"before compaction": before, "during compaction": during, "after compaction": after}
    for when, measured in recalls.items():
        print(f"recall@{NEIGHBOURS}       {measured.value:.4f}  {when}, {measured.queries:,} queries")
    wrong = check_filters(collection, packages, queries)
    wrong += [
        f"recall is under {RECALL_MIN} {when}" for when, measured in recalls.items() if measured.value < RECALL_MIN
    ]
    for problem in wrong:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Load and query the Debian package catalogue.")
    parser.add_argument("packages", type=Path, help="the catalogue, debian-packages.parquet; the queries lie beside it")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=None, help="only the first so many packages")
    options = parser.parse_args()
    if MISSING is not None:
        sys.exit(f"the package {MISSING} is not installed")
    for path in (options.packages, options.packages.with_name("debian-queries.parquet")):
        if not path.is_file():
            sys.exit(f"there is no file {path}")
    return options


def read(path: Path, rows: int | None) -> Catalogue:
    table = pq.read_table(path)
    table = table if rows is None else table.slice(0, rows)
    embedding = table["embedding"].combine_chunks()
    vectors = embedding.flatten().to_numpy().reshape(len(table), -1).astype(np.float32)
    return Catalogue(table.drop_columns(["embedding"]), vectors)


def connect(url: str) -> ClientAPI:
    address = urlsplit(url)
    settings = Settings(anonymized_telemetry=False)
    try:
        return chromadb.HttpClient(address.hostname or "127.0.0.1", address.port or 8000, settings=settings)
    except ValueError as error:  # nobody listens there, or what does is no such server
        sys.exit(f"{url}: {error}")


def fresh_collection(client: ClientAPI) -> chromadb.Collection:
    if COLLECTION in {collection.name for collection in client.list_collections()}:
        client.delete_collection(COLLECTION)
    return client.create_collection(COLLECTION, embedding_function=None)


def batches(rows: range) -> Iterator[slice]:
    for start in range(rows.start, rows.stop, BATCH_ROWS):
        yield slice(start, min(start + BATCH_ROWS, rows.stop))


def load(collection: chromadb.Collection, packages: Catalogue, rows: range, title: str) -> float:
    """Seconds until the last of `rows` was acknowledged."""
    began_s = time.monotonic()
    with tqdm(total=len(rows), desc=title, unit=" rows") as bar:
        for batch in batches(rows):
            part = packages.table.slice(batch.start, batch.stop - batch.start)
            collection.add(
                ids=part["id"].to_pylist(),
                embeddings=packages.vectors[batch],
                documents=part["document"].to_pylist(),
                metadatas=part.select(FIELDS).to_pylist(),
            )
            bar.update(len(part))
    return time.monotonic() - began_s


def wait_until_indexed(client: ClientAPI, collection: chromadb.Collection, operations: int) -> None:
    """Raises TimeoutError when the index doesn't catch up with the log."""
    deadline_s = time.monotonic() + INDEX_TIMEOUT_S
    with tqdm(total=operations, desc="indexing", unit=" rows") as bar:
        while bar.n < operations:
            bar.update(min(indexed_operations(client, collection), operations) - bar.n)
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{bar.n} of {operations} operations indexed after {INDEX_TIMEOUT_S} s")
            time.sleep(0.1)


def indexed_operations(client: ClientAPI, collection: chromadb.Collection) -> int:
    try:
        return collection.get_indexing_status().num_indexed_ops
    except ChromaError:  # the server doesn't offer it; positions count operations from 1
        return client.get_collection(COLLECTION, embedding_function=None)._model.log_position


def recall(
    collection: chromadb.Collection,
    packages: Catalogue,
    queries: np.ndarray,
    title: str,
    going: Callable[[], bool],
) -> Recall:
    """Asks the queries one by one as long as the collection is in the state to be measured, at least a few."""
    ids = packages.column("id")
    truth = exact_neighbours(packages.vectors, queries)
    found = asked = 0
    for query, rows in zip(tqdm(queries, desc=title, unit=" queries"), truth, strict=True):
        if asked and asked % GLANCE_EVERY == 0 and not going():
            break
        answer = collection.query(query_embeddings=query[None], n_results=NEIGHBOURS, include=[])
        found += len(set(answer["ids"][0]) & set(ids[rows]))
        asked += 1
    return Recall(found / (asked * NEIGHBOURS), asked)


def exact_neighbours(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """[q, NEIGHBOURS] rows, nearest by squared Euclidean distance."""
    norms = np.einsum("ij,ij->i", vectors, vectors)
    chunks = np.array_split(queries, max(1, len(queries) // 100))
    nearness = (norms - 2.0 * chunk @ vectors.T for chunk in chunks)
    return np.concatenate([np.argpartition(part, NEIGHBOURS, axis=1)[:, :NEIGHBOURS] for part in nearness])


def filters(packages: Catalogue) -> list[Filter]:
    section, size, arch = packages.column("section"), packages.column("installed_size"), packages.column("architecture")
    documents, homepage = packages.column("document"), packages.column("has_homepage")
    holds_editor = np.array(["editor" in document for document in documents])
    return [
        Filter({"section": "haskell"}, None, section == "haskell"),
        Filter({"section": {"$in": ["zope", "embedded"]}}, None, np.isin(section, ["zope", "embedded"])),
        Filter({"section": {"$ne": "libs"}}, None, section != "libs"),
        Filter({"installed_size": {"$gte": 100_000}}, None, size >= 100_000),
        Filter(
            {"$and": [{"installed_size": {"$lt": 50}}, {"architecture": "all"}, {"has_homepage": False}]},
            None,
            (size < 50) & (arch == "all") & ~homepage,
        ),
        Filter(None, {"$contains": "editor"}, holds_editor),
        Filter({"section": "editors"}, {"$not_contains": "editor"}, (section == "editors") & ~holds_editor),
    ]


def check_filters(collection: chromadb.Collection, packages: Catalogue, queries: np.ndarray) -> list[str]:
    """The faults found: every filter's get must count what numpy counts, and a query return min(k, matches) of them."""
    wrong = []
    ids = packages.column("id")
    for case in filters(packages):
        selection = {"where": case.where, "where_document": case.document}
        matching = set(ids[case.matching])
        got = collection.get(**selection, include=[])["ids"]
        answer = collection.query(query_embeddings=queries[:20], n_results=NEIGHBOURS, include=[], **selection)["ids"]
        exact = set(got) == matching and len(got) == len(matching)
        full = all(len(row) == min(NEIGHBOURS, len(matching)) and set(row) <= matching for row in answer)
        what = " ".join(str(part) for part in selection.values() if part is not None)
        print(f"filter          {len(got):6,} rows, numpy {len(matching):6,}  {what}")
        if not (exact and full):
            wrong.append(f"the filter {what} does not return what it should")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
