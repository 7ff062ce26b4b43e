"""Hybrid search over the catalogue of Debian 12 through the official Python client: words, meanings, and both.

    python examples/hybrid_search.py debian-packages.parquet [--url http://127.0.0.1:8000]

Every package gets two vectors: the MiniLM embedding of its description, and the BM25 weights of its words as a sparse
vector in its metadata. The server knows how rare a word is (`bm25`) and finds the nearest packages by either vector;
the client's `Rrf` fuses the two orders in one request. Asked are the short descriptions of twenty packages that are not
in the catalogue; hybrid_judgments.json names, for each, the packages that do its job, judged by hand among the first
ten of dense, sparse and fused search. Prints nDCG@10 and recall@10.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

try:
    import chromadb
    import httpx
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from bm25 import Bm25
    from chromadb import K, Knn, Rrf, Schema, Search, SparseVector, SparseVectorIndexConfig
    from chromadb.api import ClientAPI
    from chromadb.config import Settings
    from chromadb.errors import ChromaError
    from tqdm import tqdm

    MISSING = None
except ModuleNotFoundError as error:  # told after --help
    MISSING = error.name

COLLECTION = "debian-hybrid"
WORDS = "words"
BATCH_ROWS = 1000
CANDIDATES = 50
FOUND = 10
MISSED = 1000.0
"""The rank of a package that one of the two orders does not have."""
JUDGMENTS = Path(__file__).with_name("hybrid_judgments.json")


def main() -> int:
    options = _options()
    try:
        return compare(options)
    except Exception as error:
        if not isinstance(error, ChromaError | httpx.HTTPError) and type(error) is not Exception:
            raise  # the client makes a plain one of a status that it has no class for
        sys.exit(f"{options.url}: {error}")


def compare(options: argparse.Namespace) -> int:
    packages = pq.read_table(options.packages, columns=["id", "document", "embedding"])
    others = pq.read_table(options.packages.with_name("debian-queries.parquet"), columns=["id", "short", "embedding"])
    words = Bm25.of(packages["document"].to_pylist())
    collection = fresh_collection(connect(options.url))
    load(collection, packages, words)

    judged: dict[str, list[str]] = json.loads(JUDGMENTS.read_text())
    rows = [others["id"].to_pylist().index(name) for name in judged]
    vectors = matrix(others)[rows]
    texts = [others["short"][row].as_py() for row in rows]

    def by_meaning(number: int) -> Knn:
        return Knn(query=vectors[number], limit=CANDIDATES, return_rank=True, default=MISSED)

    def by_words(number: int) -> Knn:
        indices, values = words.query(texts[number], rarity=False)
        query = SparseVector(indices, values)
        return Knn(query=query, key=WORDS, limit=CANDIDATES, return_rank=True, default=MISSED)

    ways: dict[str, Callable[[int], Knn | Rrf]] = {
        "dense alone": by_meaning,
        "sparse alone": by_words,
        "both, RRF": lambda number: Rrf([by_meaning(number), by_words(number)]),
        "both, RRF with twice the weight on dense": lambda number: Rrf(
            [by_meaning(number), by_words(number)], weights=[2.0, 1.0]
        ),
    }
    print(f"{len(packages):,} packages, {len(judged)} judged queries     nDCG@{FOUND}   recall@{FOUND}")
    for name, rank in ways.items():
        answers = [ask(collection, rank(number)) for number in range(len(judged))]
        gains = [ndcg(found, relevant) for found, relevant in zip(answers, judged.values(), strict=True)]
        recalls = [recall(found, relevant) for found, relevant in zip(answers, judged.values(), strict=True)]
        print(f"{name:41}   {np.mean(gains):7.3f}   {np.mean(recalls):9.3f}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Hybrid search over the Debian package catalogue.")
    parser.add_argument("packages", type=Path, help="the catalogue, debian-packages.parquet; the queries lie beside it")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default: %(default)s)")
    options = parser.parse_args()
    if MISSING is not None:
        sys.exit(f"the package {MISSING} is not installed")
    for path in (options.packages, options.packages.with_name("debian-queries.parquet")):
        if not path.is_file():
            sys.exit(f"there is no file {path}")
    return options


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
    schema = Schema().create_index(SparseVectorIndexConfig(bm25=True), key=WORDS)
    return client.create_collection(COLLECTION, schema=schema, embedding_function=None)


def load(collection: chromadb.Collection, packages: pa.Table, words: Bm25) -> None:
    vectors = matrix(packages)
    for start in tqdm(range(0, len(packages), BATCH_ROWS), desc="loading", unit=" batches"):
        rows = slice(start, start + BATCH_ROWS)
        part = packages.slice(start, BATCH_ROWS)
        collection.add(
            ids=part["id"].to_pylist(),
            embeddings=vectors[rows],
            documents=part["document"].to_pylist(),
            metadatas=[{WORDS: SparseVector(indices, values)} for indices, values in words.documents[rows]],
        )


def matrix(table: pa.Table) -> np.ndarray:
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    return flat.reshape(len(table), -1).astype(np.float32)


def ask(collection: chromadb.Collection, rank: Knn | Rrf) -> list[str]:
    answer = collection.search(Search().rank(rank).limit(FOUND).select(K.SCORE))
    return answer["ids"][0]


def ndcg(found: Sequence[str], relevant: Sequence[str]) -> float:
    def gain(places: Sequence[int]) -> float:
        return sum(1.0 / math.log2(place + 2) for place in places)

    return gain([place for place, name in enumerate(found) if name in relevant]) / gain(
        range(min(len(relevant), FOUND))
    )


def recall(found: Sequence[str], relevant: Sequence[str]) -> float:
    return len(set(found) & set(relevant)) / min(len(relevant), FOUND)


if __name__ == "__main__":
    sys.exit(main())
