"""Searches by the official Python client, end to end and unchanged."""

import chromadb
from chromadb import K, Knn, Rrf, Schema, Search, SparseVector, SparseVectorIndexConfig
from chromadb.api import ClientAPI
from chromadb.execution.expression import GroupBy, MinK

IDS = ["a", "b", "c", "d"]
EMBEDDINGS = [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
DOCUMENTS = ["an apple", "a banana", "a cherry", "a date"]
WORDS = [{7: 1.0}, {7: 0.5, 9: 2.0}, {9: 0.25}, {}]
KINDS = ["pome", "berry", "drupe", "drupe"]


def filled(client: ClientAPI, name: str) -> chromadb.Collection:
    schema = Schema().create_index(SparseVectorIndexConfig(), key="words")
    collection = client.create_collection(name, schema=schema, embedding_function=None)
    collection.add(
        ids=IDS,
        embeddings=EMBEDDINGS,
        documents=DOCUMENTS,
        metadatas=[
            {"kind": kind, "words": SparseVector(list(words), list(words.values()))}
            for kind, words in zip(KINDS, WORDS, strict=True)
        ],
    )
    return collection


def test_sparse_vectors_come_back_as_they_were_added(client: ClientAPI, name: str) -> None:
    metadata = filled(client, name).get(ids=["b"])["metadatas"][0]
    assert metadata == {"kind": "berry", "words": SparseVector([7, 9], [0.5, 2.0])}


def test_dense_and_sparse_neighbours_and_both_fused(client: ClientAPI, name: str) -> None:
    collection = filled(client, name)
    dense = Knn(query=[3.0, 0.0], return_rank=True, default=100.0)
    sparse = Knn(query=SparseVector([9], [1.0]), key="words", return_rank=True, default=100.0)
    answer = collection.search(
        [
            Search().rank(Knn(query=[3.0, 0.0], limit=2)).select(K.SCORE, K.DOCUMENT),
            Search().rank(Knn(query=SparseVector([9], [1.0]), key="words")).select(K.SCORE),
            Search().rank(Rrf([dense, sparse])).limit(2),
        ]
    )
    assert answer["ids"] == [["d", "c"], ["b", "c"], ["b", "c"]]
    assert answer["scores"][:2] == [[0.0, 1.0], [-1.0, 0.75]]
    assert answer["documents"][0] == ["a date", "a cherry"]


def test_filters_groups_and_fields(client: ClientAPI, name: str) -> None:
    collection = filled(client, name)
    rank = Knn(query=[3.0, 0.0])
    grouped = (
        Search()
        .rank(rank)
        .where((K("kind") != "pome") & K.DOCUMENT.contains("a "))
        .group_by(GroupBy(keys=K("kind"), aggregate=MinK(keys=K.SCORE, k=1)))
        .select("kind")
    )
    answer = collection.search(grouped)
    assert answer["ids"] == [["d", "b"]]
    assert answer["metadatas"] == [[{"kind": "drupe"}, {"kind": "berry"}]]
    rows = collection.search(Search().where(K.ID.is_in(["a", "c"])).select_all()).rows()[0]
    assert [(row["id"], row["score"]) for row in rows] == [("a", 0.0), ("c", 1.0)]
