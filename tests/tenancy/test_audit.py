"""The audit log of a running cluster: what leaves a line, and what never is in one."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from frontend.access.access_table import TABLE, Access, Metered
from polychrome.__main__ import main
from shared.objects.keys import parse_audit_key
from shared.tenancy.api_keys import id_of_key
from shared.tenancy.audit import Event
from shared.tenancy.audit_chain import entries_of
from tests.cluster.waiting import wait_until
from tests.tenancy.conftest import Guarded
from tests.tenancy.keyring import CONTROL, Keyring, Place, body_of, furnished, path_of

ROUTES = [
    (method, pattern, access)
    for method, pattern, access in TABLE
    if access.metered in (Metered.CONTROL, Metered.CATALOG_WRITE)
]


class Written:
    """The audit logs in the bucket's directory."""

    def __init__(self, guarded: Guarded) -> None:
        self._directory = Path(guarded.cluster.directory / "objects" / "audit")

    def parts(self) -> Iterator[Path]:
        yield from sorted(self._directory.glob("2*/*.jsonl"))

    def bytes(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.parts())

    def of(self, request_id: str) -> list[Event]:
        """The events of a request."""
        named = [path for path in self.parts() if request_id.encode() in path.read_bytes()]
        entries = [entry for path in named for entry in entries_of(path.read_bytes())]
        return [entry for entry in entries if isinstance(entry, Event) and entry.request == request_id]

    def wait_for(self, request_id: str) -> Event:
        wait_until(lambda: bool(self.of(request_id)), f"the event of {request_id}", 20)
        (event,) = self.of(request_id)
        return event


@pytest.fixture(scope="module")
def written(guarded: Guarded) -> Written:
    return Written(guarded)


def asked(keyring: Keyring, key: str | None, method: str, path: str, body: Any = None) -> tuple[str, httpx.Response]:
    """The id of a new request, and its answer."""
    request_id = uuid.uuid4().hex
    return request_id, keyring.ask(key, method, path, body, **{"X-Request-Id": request_id})


def test_every_route_of_the_control_plane_leaves_a_line(keyring: Keyring, written: Written) -> None:
    place = furnished(keyring)
    sent: dict[str, tuple[str, str, Access]] = {}
    for method, pattern, access in sorted(ROUTES, key=lambda row: row[0] == "DELETE"):
        request_id, _ = asked(keyring, keyring.bootstrap, method, path_of(pattern, place), body_of(method, pattern))
        sent[request_id] = (method, pattern, access)
    for request_id, (method, pattern, access) in sent.items():
        event = written.wait_for(request_id)
        forbidden = pattern.endswith("/reset")  # by a setting
        assert (event.method, event.route, event.outcome) == (method, pattern, "denied" if forbidden else "allowed")
        assert set(event.actions) == access.actions | access.any_of
        assert event.actor.kind == "bootstrap"
        if "{tenant}" in pattern:
            assert event.tenant == place.tenant
        assert event.collection in ("", place.collection_id, place.name)


def test_each_kind_of_refusal_leaves_a_line(keyring: Keyring, place: Place, other: Place, written: Written) -> None:
    reader = keyring.key(place.tenant, "read")
    revoked = keyring.key(place.tenant, "read")
    keyring.revoke(revoked)
    cases = {
        "unauthenticated": asked(keyring, None, "POST", f"{place.path}/get", {}),
        "denied": asked(keyring, reader, "DELETE", place.database_path),
        "hidden": asked(keyring, reader, "POST", f"{other.path}/get", {}),
    }
    for outcome, (request_id, answer) in cases.items():
        event = written.wait_for(request_id)
        assert (event.outcome, event.status) == (outcome, answer.status_code)
        assert event.address == "127.0.0.1"
    hidden = written.wait_for(cases["hidden"][0])
    assert (hidden.tenant, hidden.actor.tenant, hidden.actor.id) == (other.tenant, place.tenant, id_of_key(reader))


def test_a_line_names_what_was_made(keyring: Keyring, place: Place, written: Written) -> None:
    request_id, answer = asked(keyring, keyring.bootstrap, "POST", f"{CONTROL}/keys",
                               {"tenant": place.tenant, "role": "read"})  # fmt: skip
    event = written.wait_for(request_id)
    assert (event.subject, event.tenant) == (answer.json()["id"], place.tenant)
    request_id, _ = asked(keyring, keyring.bootstrap, "POST", f"{place.database_path}/collections", {"name": "audited"})
    assert written.wait_for(request_id).subject == "audited"


def test_no_secret_no_document_and_no_vector_is_in_it(keyring: Keyring, place: Place, written: Written) -> None:
    mark = uuid.uuid4().hex
    writer = keyring.key(place.tenant, "write")
    body = {"ids": [f"id-{mark}"], "documents": [f"text {mark}"], "embeddings": [[0.123456789, 0.987654321]],
            "metadatas": [{f"key-{mark}": f"value {mark}"}]}  # fmt: skip
    _, answer = asked(keyring, writer, "POST", f"{place.path}/upsert", body)
    assert answer.status_code == 200
    asked(keyring, writer, "POST", f"{place.path}/get", {"where_document": {"$contains": mark}})
    asked(keyring, writer, "POST", f"{place.path}/query?x={mark}", {"query_embeddings": [[0.123456789, 1]]})
    asked(keyring, writer, "POST", f"{place.database_path}/collections", {"name": "made", "metadata": {"a": mark}})
    asked(keyring, keyring.bootstrap, "POST", f"{CONTROL}/keys/{writer}/revoke", {})  # a key in the place of its id
    made = keyring.made(place.tenant, "read")
    keyring.ask(None, "GET", f"/api/v2/tenants/{writer}", **{"X-Request-Id": f"of-{writer}"})
    keyring.client.get(f"/api/v2/tenants/{place.tenant}", headers={"x-chroma-token": writer + "0"})
    keyring.client.get(f"/api/v2/tenants/{place.tenant}", auth=("mia", f"password-{mark}"))
    last, _ = asked(keyring, writer, "GET", f"/api/v2/tenants/{place.tenant}")
    written.wait_for(last)
    stored = written.bytes()
    for secret in (mark, "0.123456", writer.split("_")[2], made["key"].split("_")[2], keyring.bootstrap.split("_")[2]):
        assert secret.encode() not in stored, secret
    assert f"pck_{id_of_key(writer)}[cut]".encode() in stored


def test_what_a_sender_chooses_stays_on_its_line(keyring: Keyring, place: Place, written: Written) -> None:
    name = "x\n{}\u202e\x1b[0m" + "y" * 400
    request_id, _ = asked(keyring, keyring.bootstrap, "POST", "/api/v2/tenants", {"name": name[:100]})
    event = written.wait_for(request_id)
    assert event.subject.startswith("x\\n{}\\u202e\\x1b[0m")
    assert all(parse_audit_key(f"audit/{path.parent.name}/{path.name}") for path in written.parts())


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The exit code of `polychrome audit`, and what it prints."""
    with pytest.raises(SystemExit) as ended:
        main(["audit", *words])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture
def bucket(guarded: Guarded) -> str:
    return str(guarded.cluster.directory / "objects")


def test_the_command_proves_what_a_running_cluster_has_written(
    keyring: Keyring, place: Place, written: Written, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    last, _ = asked(keyring, keyring.bootstrap, "POST", f"{place.path}/get", {})
    written.wait_for(last)
    code, out, _ = ran(capsys, "verify", bucket)
    assert code == 0, out
    assert out.splitlines()[-1] == "whole"
    code, out, _ = ran(capsys, "verify", bucket, "--json")
    assert json.loads(out)["chains"] >= 2


def test_the_command_names_what_was_changed_in_a_copy(
    written: Written, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(Path(bucket) / "audit", tmp_path / "audit")
    part = next(path for path in sorted((tmp_path / "audit").glob("2*/*.jsonl")) if b'"denied"' in path.read_bytes())
    part.chmod(0o600)
    part.write_bytes(part.read_bytes().replace(b'"denied"', b'"allowed"'))
    code, out, _ = ran(capsys, "verify", str(tmp_path))
    assert code == 1
    assert part.name in out
    assert "was changed" in out


def test_the_command_finds_events_by_what_is_known_of_them(
    keyring: Keyring, place: Place, other: Place, written: Written, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = keyring.key(place.tenant, "read")
    denied, _ = asked(keyring, reader, "DELETE", place.database_path)
    hidden, _ = asked(keyring, reader, "POST", f"{other.path}/get", {})
    read, _ = asked(keyring, reader, "POST", f"{place.path}/get", {})
    for request_id in (denied, hidden, read):
        written.wait_for(request_id)

    def found(*words: str) -> set[str]:
        code, out, _ = ran(capsys, "search", bucket, "--json", *words)
        assert code == 0
        return {event["request"] for event in json.loads(out) if event.get("actor", {}).get("id") == id_of_key(reader)}

    key_id = str(id_of_key(reader))
    assert found("--actor", key_id) == {denied, hidden, read}
    assert found("--actor", key_id, "--outcome", "denied") == {denied}
    assert found("--actor", key_id, "--action", "db:delete_database") == {denied}
    assert found("--actor", key_id, "--action", "get") == {hidden, read}
    assert found("--tenant", other.tenant) == {hidden}
    assert found("--actor", key_id, "--to", "2020-01-01T00:00:00Z") == set()
    assert found("--actor", key_id, "--from", "2020-01-01T00:00:00Z") == {denied, hidden, read}
    assert len(json.loads(ran(capsys, "search", bucket, "--json", "--limit", "2")[1])) == 2
    code, out, _ = ran(capsys, "search", bucket, "--actor", key_id, "--outcome", "denied")
    assert code == 0
    assert f"denied 403  key {key_id} of {place.tenant} 127.0.0.1  db:delete_database  DELETE" in out


def test_without_an_audit_log_nothing_is_proved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ran(capsys, "verify", str(tmp_path))
    assert code == 2
    assert "there is no audit log" in err
    assert ran(capsys, "verify", str(tmp_path / "nowhere"))[0] == 2
    assert ran(capsys, "search", "--data-dir", str(tmp_path / "nowhere"))[0] == 2


def test_a_tenants_administrator_reads_what_concerns_the_tenant(
    keyring: Keyring, place: Place, other: Place, written: Written
) -> None:
    admin = keyring.key(place.tenant, "admin")
    mine, _ = asked(keyring, admin, "POST", f"{place.path}/get", {})
    elsewhere, _ = asked(keyring, admin, "POST", f"{other.path}/get", {})
    operators, _ = asked(keyring, keyring.bootstrap, "POST", f"{place.path}/get", {})
    intruders, _ = asked(keyring, keyring.key(other.tenant, "admin"), "POST", f"{place.path}/get", {})
    for request_id in (mine, elsewhere, operators, intruders):
        written.wait_for(request_id)

    def seen(key: str, **params: str) -> set[str]:
        found, cursor = set(), {"limit": "1000"}
        while True:
            query = "&".join(f"{name}={value}" for name, value in (params | cursor).items())
            answer = keyring.ask(key, "GET", f"{CONTROL}/audit?{query}")
            assert answer.status_code == 200, answer.text
            found |= {event.get("request", "") for event in answer.json()["events"]}
            if answer.json()["next"] is None:
                return found
            cursor["cursor"] = answer.json()["next"]

    assert {mine, elsewhere, operators, intruders} & seen(admin) == {mine, elsewhere, operators}
    assert {mine, elsewhere, operators, intruders} & seen(keyring.bootstrap) == {mine, elsewhere, operators, intruders}
    assert seen(admin, tenant=other.tenant) & {mine, elsewhere} == {elsewhere}
    part = keyring.key(place.tenant, "admin", databases=[place.database])
    assert keyring.ask(part, "GET", f"{CONTROL}/audit").status_code == 403
    assert keyring.ask(keyring.key(place.tenant, "write"), "GET", f"{CONTROL}/audit").status_code == 403


def test_commands_that_work_on_the_stores_themselves_leave_an_event(
    guarded: Guarded, place: Place, written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("REDIS_URL", guarded.cluster.redis.url)
    monkeypatch.setenv("POLYCHROME_BUCKET_URL", guarded.cluster.objects.url)
    backups, new_name = str(tmp_path / "backups"), f"copy-{uuid.uuid4().hex[:8]}"
    for words in (["backup", backups, "--collection", place.collection_id],
                  ["restore", backups, "--collection", place.collection_id, "--as", new_name]):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0, capsys.readouterr().err
    events = [entry for path in written.parts() for entry in entries_of(path.read_bytes())]
    by_operators = [each for each in events if isinstance(each, Event) and each.actor.kind == "operator"]
    done = {event.route: event.subject for event in by_operators if event.actor.id}
    assert done["polychrome backup"] == place.collection_id
    assert done["polychrome restore"].endswith(f": {new_name}")
    capsys.readouterr()
    assert ran(capsys, "verify", str(guarded.cluster.directory / "objects"))[0] == 0
