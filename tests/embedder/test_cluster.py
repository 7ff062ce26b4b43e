"""Texts through a whole cluster: real processes, the real model, an embedder that is killed."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.waiting import wait_until
from tests.embedder.recorded import TEXTS, VECTORS, cosine_distances
from tests.outside.paths import CHECKOUT
from tests.test_examples import shown

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
NOTES = {
    "tides": "The moon's gravity pulls the oceans towards it, twice a day.",
    "bread": "Knead the dough, let it rise for an hour and bake it until it is golden.",
    "locks": "A mutex keeps two threads from changing the same memory at once.",
    "sails": "In a strong wind reef the mainsail early and keep the boat flat.",
}


@pytest.fixture(scope="module")
def embedding(needs_model: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ClusterBuilder(tmp_path_factory.mktemp("embedding"), embedders=1).start() as cluster:
        yield cluster


@pytest.fixture
def http(embedding: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=embedding.url, timeout=60) as client:
        yield client


def created(http: httpx.Client, name: str, **more: Any) -> str:
    answer = http.post(COLLECTIONS, json={"name": name, **more})
    assert answer.status_code == 200, answer.text
    return f"{COLLECTIONS}/{answer.json()['id']}"


def counted(http: httpx.Client, collection: str) -> int:
    count: int = http.get(f"{collection}/count").json()
    return count


def test_documents_are_found_by_what_they_mean(http: httpx.Client) -> None:
    collection = created(http, "notes", configuration={"hnsw": {"space": "cosine"}})
    added = http.post(f"{collection}/add", json={"ids": list(NOTES), "documents": list(NOTES.values())})
    assert added.status_code == 201, added.text
    asked = ["how do I make a loaf?", "race conditions", "why does the sea rise and fall?", "sailing in a storm"]
    answer = http.post(f"{collection}/query", json={"query_texts": asked, "n_results": 1}).json()
    assert answer["ids"] == [["bread"], ["locks"], ["tides"], ["sails"]]
    searches = [{"rank": {"$knn": {"query": text}}, "limit": {"limit": 1}} for text in asked]
    answer = http.post(f"{collection}/search", json={"searches": searches}).json()
    assert answer["ids"] == [["bread"], ["locks"], ["tides"], ["sails"]]


def test_what_is_stored_is_the_references_vector(http: httpx.Client) -> None:
    function = {"type": "known", "name": "sentence_transformer", "config": {"model_name": "all-MiniLM-L6-v2"}}
    collection = created(http, "reference", configuration={"embedding_function": function})
    ids = [str(number) for number in range(len(TEXTS))]
    assert http.post(f"{collection}/upsert", json={"ids": ids, "documents": TEXTS}).status_code == 200
    rows = http.post(f"{collection}/get", json={"include": ["embeddings", "documents"]}).json()
    assert rows["documents"] == TEXTS
    assert max(cosine_distances(np.array(rows["embeddings"], np.float32), VECTORS)) < 1e-5


def test_a_killed_embedder_costs_time_and_no_document(embedding: Cluster, http: httpx.Client) -> None:
    collection = created(http, "killed")
    documents = [f"{number}: {text}" for number in range(50) for text in NOTES.values()]
    body = {"ids": [str(number) for number in range(len(documents))], "documents": documents}
    answers: list[httpx.Response] = []
    before = embedded(embedding)
    request = threading.Thread(target=lambda: answers.append(http.post(f"{collection}/add", json=body)))
    request.start()
    wait_until(lambda: embedded(embedding) > before, "texts being embedded", 30)
    process = embedding.process("embedder-1")
    assert process.pid is not None
    process.send(signal.SIGKILL)
    assert process.wait(10)
    assert not answers
    process.start()
    request.join(60)
    assert [answer.status_code for answer in answers] == [201], answers
    assert counted(http, collection) == len(documents)
    embedding.wait_ready(process)


def test_without_an_embedder_the_failure_is_clear_and_nothing_is_stored(embedding: Cluster, http: httpx.Client) -> None:
    collection = created(http, "alone")
    embedding.process("embedder-1").kill()
    try:
        answer = http.post(f"{collection}/add", json={"ids": ["a"], "documents": ["x"]})
        assert (answer.status_code, answer.json()["error"]) == (503, "ChromaError")
        assert re.search("unavailable, as no embedder answers; nothing was stored", answer.json()["message"])
        given = http.post(f"{collection}/add", json={"ids": ["b"], "documents": ["x"], "embeddings": [[1.0] * 384]})
        assert given.status_code == 201
        assert counted(http, collection) == 1
    finally:
        embedding.restart("embedder-1")
    assert http.post(f"{collection}/add", json={"ids": ["a"], "documents": ["x"]}).status_code == 201


def test_the_example_prints_what_the_readme_shows(embedding: Cluster) -> None:
    script = CHECKOUT / "examples" / "texts.py"
    ran = subprocess.run([sys.executable, script, embedding.url], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == shown("texts output")
    assert script.read_text().endswith(shown("texts script"))


def embedded(cluster: Cluster) -> float:
    """Texts that the embedder has done, by its own count."""
    admin = cluster.process("embedder-1").admin_address
    metrics = httpx.get(f"http://{admin}/metrics", timeout=10).text
    found = re.search(r"^polychrome_embedder_texts_total ([0-9.e+]+)$", metrics, re.MULTILINE)
    assert found is not None
    return float(found[1])
