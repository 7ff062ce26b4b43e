"""`polychrome up --auth keys` from the first start on, as its operator and a user of it have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import chromadb
import httpx
import pytest
from chromadb.api import ClientAPI
from chromadb.config import Settings
from chromadb.errors import AuthorizationError, ChromaAuthError

from tests.polychrome.terminal import Terminal, terminals
from tests.tenancy.conftest import CLIENTS

__all__ = ["terminals"]

pytestmark = CLIENTS


def polychrome(*words: str, folder: Path) -> str:
    command = [sys.executable, "-m", "polychrome", *words]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.strip()


def client_of(terminal: Terminal, key: str) -> ClientAPI:
    given: dict[str, Any] = {
        "chroma_client_auth_provider": "chromadb.auth.token_authn.TokenAuthClientProvider",
        "chroma_client_auth_credentials": key,
    }
    return chromadb.HttpClient("127.0.0.1", terminal.port, settings=Settings(anonymized_telemetry=False, **given))


def test_a_local_cluster_with_keys_is_used_by_them_alone(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminals.append(terminal := Terminal(tmp_path / "data", "--auth", "keys"))
    key_file = Path(terminal.until("That of the operator is in").rpartition(" is in ")[2])
    assert key_file.stat().st_mode & 0o777 == 0o600

    tenant = ("--tenant", "default_tenant", "--data-dir", str(tmp_path / "data"))
    writer = polychrome("keys", "create", "--role", "write", *tenant, folder=tmp_path)
    collection = client_of(terminal, writer).create_collection("shop", embedding_function=None)
    collection.add(ids=["a"], embeddings=[1.0, 2.0])
    reader = polychrome("keys", "create", "--role", "read", *tenant, folder=tmp_path)
    of_reader = client_of(terminal, reader).get_collection("shop", embedding_function=None)
    assert of_reader.get()["ids"] == ["a"]
    with pytest.raises(ChromaAuthError):
        of_reader.delete(ids=["a"])
    for wrong in (writer[:-1] + ("0" if writer[-1] != "0" else "1"), "nonsense"):
        with pytest.raises(AuthorizationError):
            client_of(terminal, wrong)
    assert httpx.get(f"{terminal.url}/api/v2/tenants/default_tenant", timeout=10).status_code == 401
    assert terminal.stop() == 0

    terminals.append(again := Terminal(tmp_path / "data", "--auth", "keys"))
    assert key_file == Path(again.until("That of the operator is in").rpartition(" is in ")[2])
    assert client_of(again, reader).get_collection("shop", embedding_function=None).get()["ids"] == ["a"]
    assert again.stop() == 0
