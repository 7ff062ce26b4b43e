"""`python -m bench.sparse`: the sparse index by itself, beside well-kept sparse libraries on the same data.

BM25 vectors of the Debian packages' descriptions, the 1,500 short descriptions that lie beside them as queries, the
nearest ten of each. CPU time of one thread, medians over rounds that alternate. The libraries are measured where they
are installed (`pip install scipy sparse_dot_topn`): scipy adds the columns of a query and its top ten are picked with
numpy; sparse_dot_topn multiplies and picks in C++. Both compute every product, ours does not have to.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq

from deploy import real_data
from examples.bm25 import Bm25
from shared.segment.sparse_index import InvertedIndex, sparse_indexes
from shared.vectors.sparse import SparseArrays

NEIGHBOURS = 10
FILTER_SHARES = (0.5, 0.01)
ROUNDS = 3

Search = Callable[[SparseArrays], Any]


def main() -> None:
    options = _options()
    table = pq.read_table(options.data / "debian-packages.parquet", columns=["document"])
    asked = pq.read_table(options.data / "debian-queries.parquet", columns=["short"])["short"].to_pylist()
    model = Bm25.of(table["document"].to_pylist())
    queries = [_arrays(*model.query(text, rarity=True)) for text in asked]
    texts = [
        orjson.dumps({"sv": {"#type": "sparse_vector", "indices": indices, "values": values}}).decode()
        for indices, values in model.documents
    ]
    began_s = time.process_time()
    index = sparse_indexes(texts, ["sv"])["sv"]
    print(f"{index.count:,} rows, {len(index.rows):,} weights, {len(index.indices):,} indices; "
          f"built from JSON in {time.process_time() - began_s:.1f} s")  # fmt: skip
    random = np.random.default_rng(1)
    searches: dict[str, Search] = {"ours": lambda query: index.nearest(query, NEIGHBOURS)}
    for share in FILTER_SHARES:
        mask = random.random(index.count) < share
        searches[f"ours, {share:.0%} of the rows"] = lambda query, mask=mask: index.nearest(query, NEIGHBOURS, mask)  # type: ignore[misc] # no type for a lambda with a default
    searches |= _libraries(index)
    times: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(ROUNDS):
        for name, search in searches.items():
            times[name].append(_ms_per_query(search, queries))
    for name, found in times.items():
        print(f"{name:34} {statistics.median(found):6.2f} ms CPU a query")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sparse", description="The sparse index beside libraries.")
    parser.add_argument("--data", type=Path, default=real_data.DIRECTORY, help="folder of the Debian catalogue")
    return parser.parse_args()


def _arrays(indices: Sequence[int], values: Sequence[float]) -> SparseArrays:
    return SparseArrays(np.array(indices, np.uint32), np.array(values, np.float32))


def _ms_per_query(search: Search, queries: Sequence[SparseArrays]) -> float:
    began_s = time.process_time()
    for query in queries:
        search(query)
    return (time.process_time() - began_s) / len(queries) * 1000


def _libraries(index: InvertedIndex) -> dict[str, Search]:
    if importlib.util.find_spec("scipy") is None:
        print("scipy is not installed: nothing to compare with", file=sys.stderr)
        return {}
    from scipy import sparse

    shape = (index.count, len(index.indices))
    by_index = sparse.csc_matrix((index.weights, index.rows, index.starts), shape=shape)

    def scipy_search(query: SparseArrays) -> Any:
        products = by_index[:, query.indices] @ query.values
        best = np.argpartition(products, -NEIGHBOURS)[-NEIGHBOURS:]
        return best[np.argsort(-products[best])]

    found: dict[str, Search] = {"scipy": scipy_search}
    if importlib.util.find_spec("sparse_dot_topn") is not None:
        from sparse_dot_topn import sp_matmul_topn

        transposed = by_index.T.tocsr()

        def topn_search(query: SparseArrays) -> Any:
            ends = [0, len(query.indices)]
            row = sparse.csr_matrix((query.values, query.indices, ends), shape=(1, len(index.indices)))
            return sp_matmul_topn(row, transposed, top_n=NEIGHBOURS, sort=True)

        found["sparse_dot_topn"] = topn_search
    return found


if __name__ == "__main__":
    main()
