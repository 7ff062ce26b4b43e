"""`polychrome keys` and `polychrome tenants` against a running cluster."""

from __future__ import annotations

import json
import ssl
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from polychrome.__main__ import main
from polychrome.local.datadir import bootstrap_key_file
from shared.tenancy.api_keys import id_of_key
from tests.certificates import Authority
from tests.tenancy.keyring import Keyring, Place, furnished

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(keyring: Keyring, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with the operator's key: its exit code, and what it prints."""
    file = tmp_path / "key"
    file.write_text(keyring.bootstrap + "\n")

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--url", keyring.urls[0], "--key-file", str(file)])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def done(answer: tuple[int, str, str]) -> Any:
    code, out, err = answer
    assert code == 0, err
    return json.loads(out)


def test_a_key_is_made_listed_shown_rotated_and_revoked(keyring: Keyring, place: Place, run: Run) -> None:
    code, out, _ = run("keys", "create", "--tenant", place.tenant, "--database", "main", "--role", "read",
                       "--expires-in", "90d", "--name", "the shop")  # fmt: skip
    assert code == 0
    key = out.strip()
    key_id = id_of_key(key)
    assert key_id is not None
    assert keyring.ask(key, "GET", f"{place.path}/count").json() >= 1
    code, out, _ = run("keys", "list", "--tenant", place.tenant)
    assert code == 0
    assert f"{key_id}  {place.tenant}/main/*  read  until " in out
    shown = done(run("keys", "show", key_id, "--json"))
    assert (shown["name"], shown["creator"], shown["databases"]) == ("the shop", "bootstrap", ["main"])
    rotated = done(run("keys", "rotate", key_id, "--overlap", "1h", "--json"))
    assert rotated["live"]
    for text in (key, rotated["key"]):
        assert keyring.ask(text, "GET", "/api/v2/auth/identity").status_code == 200
    assert done(run("keys", "revoke", key_id, "--json"))["revoked_s"] is not None
    code, _, err = run("keys", "rotate", key_id)
    assert code == 2
    assert "was revoked" in err


def test_what_cannot_be_done_is_said_with_its_exit_code(run: Run) -> None:
    code, out, err = run("keys", "show", "a" * 16)
    assert (code, out) == (2, "")
    assert "does not exist" in err
    for words in (["keys", "create", "--role", "read"], ["keys", "create", "--tenant", "t", "--role", "boss"],
                  ["keys", "create", "--tenant", "t", "--role", "read", "--expires-in", "soon"],
                  ["tenants", "delete", "t"]):  # fmt: skip
        assert run(*words)[0] == 2


def test_a_tenant_is_listed_shown_and_deleted(keyring: Keyring, run: Run) -> None:
    place = furnished(keyring)
    assert place.tenant in run("tenants", "list")[1].splitlines()
    assert done(run("tenants", "show", place.tenant, "--json"))["databases"] == 1
    assert "is deleted; 0 keys were revoked" in run("tenants", "delete", place.tenant, "--yes")[1]
    assert run("tenants", "show", place.tenant)[0] == 2


def test_a_tenant_is_made_with_its_databases(keyring: Keyring, run: Run) -> None:
    name = f"made-{uuid.uuid4().hex}"
    made = run("tenants", "create", name, "--database", "shop", "--database", "staging")
    assert made[:2] == (0, f"{name} is made; its databases: shop, staging.\n")
    assert done(run("tenants", "show", name, "--json"))["databases"] == 2
    key = run("keys", "create", "--tenant", name, "--database", "shop", "--role", "write")[1].strip()
    path = f"/api/v2/tenants/{name}/databases/shop/collections"
    assert keyring.ask(key, "POST", path, {"name": "things"}).status_code == 200
    code, _, err = run("tenants", "create", name)
    assert code == 2
    assert "already exists" in err


def test_a_tenant_whose_database_is_refused_is_said_to_be_there(run: Run) -> None:
    name = f"made-{uuid.uuid4().hex}"
    code, _, err = run("tenants", "create", name, "--database", "shop", "--database", "x")
    assert code == 2
    assert f"(tenant {name} is made; of its databases: shop)" in err
    assert done(run("tenants", "show", name, "--json"))["databases"] == 1


def test_of_a_whole_key_its_id_alone_is_sent(place: Place, run: Run) -> None:
    key = run("keys", "create", "--tenant", place.tenant, "--role", "read")[1].strip()
    assert done(run("keys", "revoke", key, "--json"))["id"] == id_of_key(key)


def test_a_command_without_a_key_says_where_one_is_named(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CHROMA_API_KEY", raising=False)
    with pytest.raises(SystemExit, match="2"):
        main(["tenants", "list", "--url", keyring.urls[0]])
    assert "--key-file" in capsys.readouterr().err


class NoTenants(BaseHTTPRequestHandler):
    """Answers every GET with an empty list."""

    def do_GET(self) -> None:
        """Called by the server."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")


def test_a_command_that_does_not_trust_a_certificate_says_how_it_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("api")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), NoTenants) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        words = ["tenants", "list", "--url", f"https://127.0.0.1:{server.server_port}"]
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "SSL_CERT_FILE" in capsys.readouterr().err
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        with pytest.raises(SystemExit, match="0"):
            main(words)
        server.shutdown()


def test_a_quota_without_an_amount_is_told_by_example(run: Run) -> None:
    code, _, err = run("plans", "set", "small", "records")
    assert code == 2
    assert "'records' has no amount: records=5000, for example" in err


def test_the_operators_key_of_a_local_cluster_is_drawn_once_and_its_owners_alone(tmp_path: Path) -> None:
    path = bootstrap_key_file(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert id_of_key(text.strip()) is not None
    assert bootstrap_key_file(tmp_path).read_text() == text
