"""The official Python client, synchronous, end to end and unchanged."""

import uuid

import chromadb
import numpy as np
import pytest
from chromadb.api import ClientAPI
from chromadb.config import Settings
from chromadb.errors import ChromaError, InvalidArgumentError, NotFoundError
from chromadb.utils.batch_utils import create_batches

from tests.clients.conftest import address

IDS = ["a", "b", "c", "d"]
EMBEDDINGS = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]
DOCUMENTS = ["an apple", "a banana", "a cherry", "a date"]
METADATAS = [
    {"n": 1, "kind": "pome"},
    {"n": 2, "kind": "berry"},
    {"n": 3, "kind": "drupe"},
    {"n": 4, "tags": ["x", "y"]},
]


def filled(client: ClientAPI, name: str) -> chromadb.Collection:
    collection = client.create_collection(name, embedding_function=None)
    collection.add(ids=IDS, embeddings=EMBEDDINGS, documents=DOCUMENTS, metadatas=METADATAS)
    return collection


def test_the_constructor_finds_tenant_and_database(client: ClientAPI) -> None:
    assert client.tenant == "default_tenant"
    assert client.database == "default_database"
    assert client.heartbeat() > 0
    assert client.get_version() == "1.0.0"
    assert client.get_max_batch_size() > 0


def test_records_come_back_as_they_were_added(client: ClientAPI, name: str) -> None:
    got = filled(client, name).get(include=["embeddings", "documents", "metadatas", "uris"])
    assert got["ids"] == IDS
    np.testing.assert_array_equal(got["embeddings"], np.array(EMBEDDINGS))
    assert got["documents"] == DOCUMENTS
    assert got["metadatas"] == METADATAS
    assert got["uris"] == [None] * 4


def test_a_query_finds_the_nearest_first(client: ClientAPI, name: str) -> None:
    found = filled(client, name).query(query_embeddings=[[1.0, 0.1, 0.0], [0.0, 0.0, 2.0]], n_results=2)
    assert found["ids"][0] == ["a", "d"]
    assert found["ids"][1][0] == "c"
    assert found["documents"][0] == ["an apple", "a date"]
    assert found["distances"][0] == pytest.approx([0.01, 0.41], abs=1e-5)


def test_a_query_filters_by_metadata_document_and_ids(client: ClientAPI, name: str) -> None:
    collection = filled(client, name)
    everything = {"query_embeddings": [[1.0, 0.0, 0.0]], "n_results": 10}
    assert set(collection.query(**everything, where={"n": {"$gte": 2}})["ids"][0]) == {"b", "c", "d"}
    assert collection.query(**everything, where_document={"$contains": "cherry"})["ids"] == [["c"]]
    assert collection.query(**everything, where_document={"$regex": "^an? [ab]"})["ids"] == [["a", "b"]]
    assert collection.query(**everything, ids=["b", "a"])["ids"] == [["a", "b"]]
    assert collection.query(**everything, where={"tags": {"$contains": "y"}})["ids"] == [["d"]]


def test_get_filters_and_pages_in_insertion_order(client: ClientAPI, name: str) -> None:
    collection = filled(client, name)
    assert collection.get(ids=["d", "b", "nobody"])["ids"] == ["b", "d"]
    assert collection.get(limit=2, offset=1)["ids"] == ["b", "c"]
    assert collection.get(where={"$or": [{"n": 1}, {"kind": {"$in": ["drupe"]}}]})["ids"] == ["a", "c"]
    assert collection.get(where={"kind": {"$ne": "pome"}})["ids"] == ["b", "c", "d"]
    assert collection.peek(2)["ids"] == ["a", "b"]
    assert collection.count() == 4


def test_update_merges_and_ignores_unknown_ids(client: ClientAPI, name: str) -> None:
    collection = filled(client, name)
    collection.update(ids=["a", "nobody"], metadatas=[{"n": None, "new": 1.5}, {"z": 1}])
    collection.update(ids=["a"], embeddings=[[1.0, 0.0, 0.5]], documents=["an orange"])
    got = collection.get(ids=["a", "nobody"], include=["documents", "metadatas", "embeddings"])
    assert got["ids"] == ["a"]
    assert got["documents"] == ["an orange"]
    assert got["metadatas"] == [{"kind": "pome", "new": 1.5}]
    np.testing.assert_array_equal(got["embeddings"], [[1.0, 0.0, 0.5]])


def test_upsert_inserts_and_replaces(client: ClientAPI, name: str) -> None:
    collection = filled(client, name)
    collection.upsert(ids=["a", "e"], embeddings=[[9.0, 9.0, 9.0], [8.0, 8.0, 8.0]], documents=["apricot", "elder"])
    assert collection.count() == 5
    assert collection.get(ids=["a"])["documents"] == ["apricot"]
    assert collection.query(query_embeddings=[[9.0, 9.0, 9.0]], n_results=2)["ids"] == [["a", "e"]]


def test_adding_an_existing_id_changes_nothing(client: ClientAPI, name: str) -> None:
    collection = filled(client, name)
    collection.add(ids=["a"], embeddings=[[7.0, 7.0, 7.0]], documents=["another"])
    assert collection.get(ids=["a"])["documents"] == ["an apple"]
    assert collection.count() == 4


def test_delete_by_ids_where_and_document(client: ClientAPI, name: str) -> None:
    collection = filled(client, name)
    assert collection.delete(ids=["a"])["deleted"] == 1
    assert collection.delete(where={"n": {"$gt": 2}}, limit=1)["deleted"] == 1
    assert collection.get()["ids"] == ["b", "d"]
    assert collection.delete(where_document={"$contains": "date"})["deleted"] == 1
    assert collection.get()["ids"] == ["b"]


def test_collections_are_created_listed_renamed_and_deleted(client: ClientAPI, name: str) -> None:
    created = client.create_collection(name, metadata={"owner": "me"}, embedding_function=None)
    assert client.get_collection(name, embedding_function=None).id == created.id
    again = client.get_or_create_collection(name, metadata={"owner": "you"}, embedding_function=None)
    assert again.id == created.id
    assert again.metadata == {"owner": "me"}
    assert name in {collection.name for collection in client.list_collections()}
    assert client.count_collections() >= 1
    created.modify(name=f"{name}-new", metadata={"owner": "they"})
    assert client.get_collection(f"{name}-new", embedding_function=None).metadata == {"owner": "they"}
    with pytest.raises(NotFoundError):
        client.get_collection(name)
    client.delete_collection(f"{name}-new")
    with pytest.raises(NotFoundError):
        created.count()


def test_the_configuration_chooses_the_distance(client: ClientAPI, name: str) -> None:
    collection = client.create_collection(
        name, configuration={"hnsw": {"space": "cosine", "ef_search": 50}}, embedding_function=None
    )
    collection.add(ids=["near", "far"], embeddings=[[5.0, 0.0], [0.0, 0.1]])
    found = collection.query(query_embeddings=[[1.0, 0.0]])
    assert found["ids"] == [["near", "far"]]
    assert found["distances"][0] == pytest.approx([0.0, 1.0], abs=1e-6)
    with pytest.warns(DeprecationWarning, match="legacy embedding function"):
        assert client.get_collection(name, embedding_function=None).configuration["hnsw"]["ef_search"] == 50


def test_errors_are_the_clients_own_classes(client: ClientAPI, name: str) -> None:
    collection = filled(client, name)
    with pytest.raises(ChromaError, match="already exists"):
        client.create_collection(name)
    with pytest.raises(InvalidArgumentError, match="dimension of 3, got 2"):
        collection.add(ids=["z"], embeddings=[[1.0, 2.0]])
    with pytest.raises(NotFoundError, match="does not exist") as raised:
        client.delete_collection(f"{name}-nobody")
    assert raised.value.trace_id
    assert collection.count() == 4


def test_a_batch_as_large_as_the_client_allows(client: ClientAPI, name: str) -> None:
    collection = client.create_collection(name, embedding_function=None)
    rows = client.get_max_batch_size() + 100
    ids = [f"row-{row}" for row in range(rows)]
    vectors = np.random.default_rng(7).random((rows, 8), dtype=np.float32)
    for batch in create_batches(client, ids, list(vectors)):
        collection.add(*batch[:2])
    assert collection.count() == rows
    exact = np.argsort(((vectors - vectors[100]) ** 2).sum(axis=1))[:5]
    assert collection.query(query_embeddings=vectors[100:101], n_results=5)["ids"] == [[ids[row] for row in exact]]


def test_tenants_and_databases_keep_their_collections_apart(server_url: str, name: str) -> None:
    host, port = address(server_url)
    settings = Settings(
        anonymized_telemetry=False,
        chroma_api_impl="chromadb.api.fastapi.FastAPI",
        chroma_server_host=host,
        chroma_server_http_port=port,
    )
    admin = chromadb.AdminClient(settings)
    tenant = f"tenant-{uuid.uuid4().hex[:12]}"
    admin.create_tenant(tenant)
    assert admin.get_tenant(tenant)["name"] == tenant
    for database in ("first", "second"):
        admin.create_database(database, tenant)
    assert {database["name"] for database in admin.list_databases(tenant=tenant)} == {"first", "second"}
    first, second = (
        chromadb.HttpClient(
            host=host, port=port, tenant=tenant, database=database, settings=Settings(anonymized_telemetry=False)
        )
        for database in ("first", "second")
    )
    filled(first, name)
    assert second.list_collections() == []
    admin.delete_database("first", tenant)
    with pytest.raises(NotFoundError):
        admin.get_database("first", tenant)
