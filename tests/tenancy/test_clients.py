"""The official clients with each kind of header, and the exceptions that they raise."""

from __future__ import annotations

import base64
import os
import subprocess
from urllib.parse import urlsplit

import chromadb
import pytest
from argon2 import PasswordHasher
from chromadb.api import ClientAPI
from chromadb.config import Settings
from chromadb.errors import AuthorizationError, ChromaAuthError, NotFoundError

from tests.clients.test_javascript import PACKAGE, node
from tests.cluster.waiting import wait_until
from tests.tenancy.conftest import CLIENTS, Guarded
from tests.tenancy.keyring import Keyring, Place

__all__ = ["node"]


pytestmark = CLIENTS


TOKEN = "chromadb.auth.token_authn.TokenAuthClientProvider"
BASIC = "chromadb.auth.basic_authn.BasicAuthClientProvider"


def settings(**given: str) -> Settings:
    return Settings(anonymized_telemetry=False, **given)


def client_of(keyring: Keyring, place: Place, **given: str) -> ClientAPI:
    url = urlsplit(keyring.urls[0])
    return chromadb.HttpClient(
        host=str(url.hostname),
        port=url.port or 0,
        tenant=place.tenant,
        database=place.database,
        settings=settings(**given),
    )


@pytest.mark.parametrize("header", ["Authorization", "X-Chroma-Token"])
def test_the_python_client_reads_and_writes_by_a_token(keyring: Keyring, place: Place, header: str) -> None:
    key = keyring.key(place.tenant, "write")
    client = client_of(
        keyring, place, chroma_client_auth_provider=TOKEN, chroma_client_auth_credentials=key,
        chroma_auth_token_transport_header=header,
    )  # fmt: skip
    collection = client.get_collection("items", embedding_function=None)
    collection.upsert(ids=["b"], embeddings=[[0.0, 1.0]])
    assert set(collection.get()["ids"]) >= {"a", "b"}


@pytest.fixture
def user(guarded: Guarded, place: Place) -> str:
    """A name and a password, of a key that reads."""
    key_id = guarded.keyring.made(place.tenant, "read")["id"]
    guarded.users_file.write_text(f"mia:{PasswordHasher(memory_cost=1024, time_cost=1).hash('secret')}:{key_id}\n")
    headers = {"Authorization": f"Basic {base64.b64encode(b'mia:secret').decode()}"}

    def taken() -> bool:
        return guarded.keyring.ask(None, "GET", f"/api/v2/tenants/{place.tenant}", **headers).status_code == 200

    wait_until(taken, "the new file of users", 10)
    return "mia:secret"


def test_the_python_client_reads_by_a_name_and_a_password(keyring: Keyring, place: Place, user: str) -> None:
    client = client_of(keyring, place, chroma_client_auth_provider=BASIC, chroma_client_auth_credentials=user)
    assert client.get_user_identity().user_id == "mia"
    assert client.get_collection("items", embedding_function=None).count() >= 1
    with pytest.raises(ChromaAuthError, match="create_collection is needed"):
        client.create_collection("other")
    wrong = {"chroma_client_auth_provider": BASIC, "chroma_client_auth_credentials": "mia:wrong"}
    with pytest.raises(AuthorizationError):
        client_of(keyring, place, **wrong)


def test_the_cloud_client_finds_its_tenant_and_database_by_its_key(keyring: Keyring, place: Place) -> None:
    key = keyring.key(place.tenant, "read", databases=[place.database])
    url = urlsplit(keyring.urls[0])
    client = chromadb.CloudClient(
        api_key=key, cloud_host=str(url.hostname), cloud_port=url.port or 0, enable_ssl=False, settings=settings()
    )
    assert [collection.name for collection in client.list_collections()][:1] == ["items"]
    assert client.get_collection("items", embedding_function=None).count() >= 1


def test_the_python_client_raises_its_own_exceptions(keyring: Keyring, place: Place, other: Place) -> None:
    with pytest.raises(AuthorizationError):
        client_of(keyring, place, chroma_client_auth_provider=TOKEN, chroma_client_auth_credentials="nonsense")
    with pytest.raises(AuthorizationError):
        client_of(keyring, place)
    key = keyring.key(place.tenant, "read")
    given = {"chroma_client_auth_provider": TOKEN, "chroma_client_auth_credentials": key}
    client = client_of(keyring, place, **given)
    with pytest.raises(ChromaAuthError):
        client.get_collection("items", embedding_function=None).add(ids=["x"], embeddings=[[1.0, 1.0]])
    with pytest.raises(NotFoundError):
        client.get_collection("nothing")
    with pytest.raises(NotFoundError, match=f"Tenant \\[{other.tenant}\\] not found"):
        client_of(keyring, other, **given)


def test_a_token_of_the_issuer_is_taken_where_a_key_is(guarded: Guarded, place: Place) -> None:
    token = guarded.issuer.token(org=place.tenant, app={"dbs": ["main"]}, role="read")
    given = {"chroma_client_auth_provider": TOKEN, "chroma_client_auth_credentials": token}
    client = client_of(guarded.keyring, place, **given)
    assert client.get_user_identity().databases == ["main"]
    with pytest.raises(ChromaAuthError):
        client.create_collection("other")


def test_the_javascript_client_takes_each_header_and_raises_its_own_exceptions(
    node: str, guarded: Guarded, place: Place, user: str
) -> None:
    keyring = guarded.keyring
    ran = subprocess.run(
        [node, "--test", "auth.test.mjs"],
        cwd=PACKAGE,
        env={
            **os.environ,
            "SERVER_URL": keyring.urls[0],
            "WRITE_KEY": keyring.key(place.tenant, "write"),
            "READ_KEY": keyring.key(place.tenant, "read", databases=[place.database]),
            "TOKEN": guarded.issuer.token(org=place.tenant, app={"dbs": ["main"]}, role="read"),
            "USER_AND_PASSWORD": user,
            "TENANT": place.tenant,
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
