"""Usage over HTTP and by a command: attributed to tenants, shown to those whom it concerns."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from typing import Any

import pytest

from frontend.routes.usage import csv_name
from shared.tenancy.usage import MEASURES
from tests.tenancy.keyring import CONTROL, Keyring, Place, furnished
from tests.tenancy.test_commands import Run, done, run

__all__ = ["run"]

USAGE = f"{CONTROL}/usage"
DEADLINE_S = 60.0


def used_by(keyring: Keyring, key: str, tenant: str) -> dict[str, int]:
    answer = keyring.ask(key, "GET", USAGE)
    assert answer.status_code == 200, answer.text
    found = [each for each in answer.json()["totals"] if each["tenant"] == tenant]
    return found[0] if found else {}


def eventually(read: Callable[[], dict[str, int]], holds: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """What is read once it holds: processes pass on what they count every ten seconds."""
    ends_s = time.monotonic() + DEADLINE_S
    while not holds(found := read()):
        assert time.monotonic() < ends_s, found
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def busy(keyring: Keyring) -> tuple[Place, Place]:
    """A tenant that has used something, and another one with equal names that has written one record."""
    mine, theirs = furnished(keyring), furnished(keyring)
    vectors = [[float(number), 1.0] for number in range(9)]
    records = {"ids": [f"r{number}" for number in range(9)], "embeddings": vectors}
    keyring.do("POST", f"{mine.path}/upsert", records)
    keyring.do("POST", f"{mine.path}/query", {"query_embeddings": [[1, 0], [0, 1]], "n_results": 3})
    keyring.do("POST", f"{mine.path}/query", {"query_embeddings": [[1, 0]], "n_results": 3})
    keyring.do("POST", f"{mine.path}/search", {"searches": [{}, {}]})
    assert keyring.ask(keyring.bootstrap, "POST", f"{mine.path}/query", {"query_embeddings": [[1]]}).status_code == 400
    assert keyring.ask(keyring.bootstrap, "GET", "/api/v2/tenants/of-nobody").status_code == 404
    return mine, theirs


def test_what_a_tenant_uses_is_counted_once_and_for_nobody_else(keyring: Keyring, busy: tuple[Place, Place]) -> None:
    mine, theirs = busy
    admin, other = keyring.key(mine.tenant, "admin"), keyring.key(theirs.tenant, "admin")
    found = eventually(
        lambda: used_by(keyring, admin, mine.tenant),
        lambda used: (
            used.get("records_written", 0) >= 10 and used.get("queries", 0) >= 5 and used.get("compaction_ms", 0) > 0
        ),
    )
    assert (found["records_written"], found["queries"]) == (10, 5)
    assert (found["requests_read"], found["requests_write"]) == (3, 2)
    assert found["bytes_written"] > 10 * 8
    assert found["rows_scanned"] >= 3 * 10  # three vectors, compared with all
    assert found["bytes_scanned"] >= 3 * 10 * 2 * 4
    assert found["bytes_returned"] > 0
    assert used_by(keyring, other, mine.tenant) == {}
    shown = eventually(lambda: used_by(keyring, other, theirs.tenant), lambda used: used.get("records_written", 0) >= 1)
    assert (shown["records_written"], shown["queries"]) == (1, 0)
    everybody = {each["tenant"] for each in keyring.do("GET", USAGE)["totals"]}
    assert {mine.tenant, theirs.tenant} <= everybody
    assert "of-nobody" not in everybody


def test_usage_is_seen_by_those_whom_it_concerns(keyring: Keyring, busy: tuple[Place, Place]) -> None:
    mine, theirs = busy

    def status(key: str | None, query: str = "") -> int:
        return keyring.ask_from_elsewhere(key, "GET", USAGE + query).status_code

    admin = keyring.key(mine.tenant, "admin")
    assert status(admin, f"?tenant={mine.tenant}") == 200
    assert status(admin, f"?tenant={theirs.tenant}") == status(admin, "?tenant=of-nobody") == 404
    assert status(keyring.key(mine.tenant, "write")) == 403
    assert status(keyring.key(mine.tenant, "admin", databases=["main"])) == 403
    assert status(None) == 401
    assert status(keyring.bootstrap, f"?tenant={theirs.tenant}") == 200


@pytest.mark.parametrize(
    "query",
    ["from=yesterday", "to=-1", "to=99999999999999", "from=2026-01-02&to=2026-01-01", "from=2020-01-01&to=2026-01-01",
     "format=xml", "tenant=a&tenant=b", "to=9999-12-31T23:59:59Z"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(keyring: Keyring, query: str) -> None:
    assert keyring.ask(keyring.bootstrap, "GET", f"{USAGE}?{query}").status_code == 400


def test_a_report_is_csv_by_its_parameter_or_by_the_accept_header(
    keyring: Keyring, busy: tuple[Place, Place], run: Run
) -> None:
    mine, _ = busy
    admin = keyring.key(mine.tenant, "admin")
    eventually(lambda: used_by(keyring, admin, mine.tenant), lambda used: used.get("queries", 0) >= 5)
    by_header = keyring.ask(admin, "GET", USAGE, Accept="text/csv")
    by_parameter = keyring.ask(admin, "GET", f"{USAGE}?format=csv")
    for answer in (by_header, by_parameter):
        assert answer.headers["Content-Type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert {row["tenant"] for row in rows} == {mine.tenant}
        assert list(rows[0]) == ["hour", "tenant", "final", *MEASURES]
        assert sum(int(row["queries"]) for row in rows) == 5
    code, printed, _ = run("usage", "--tenant", mine.tenant, "--csv")
    assert code == 0
    assert printed.splitlines()[0] == by_header.text.splitlines()[0]


def test_usage_is_shown_by_a_command(keyring: Keyring, busy: tuple[Place, Place], run: Run) -> None:
    mine, _ = busy
    eventually(lambda: used_by(keyring, keyring.bootstrap, mine.tenant), lambda used: used.get("queries", 0) >= 5)
    shown: Any = done(run("usage", "--tenant", mine.tenant, "--json"))
    assert [each["tenant"] for each in shown["totals"]] == [mine.tenant]
    lines = run("usage", "--tenant", mine.tenant)[1].splitlines()
    assert lines[0].startswith("from ")
    assert f"{mine.tenant}:" in lines
    assert "  queries: 5" in lines
    assert "Nothing was used." in run("usage", "--tenant", mine.tenant, "--from", "2020-01-01", "--to", "2020-01-02")[1]
    assert run("usage", "--from", "nonsense")[0] == 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [("=cmd|calc", "'=cmd|calc"), ("+1+1", "'+1+1"), ("-1", "'-1"), ("@SUM(A1)", "'@SUM(A1)"), ("\t=1", "'\t=1"),
     ("\r=1", "'\r=1"), (" =1", "' =1"), ("'=1", "''=1"), ("acme", "acme"), ("a=b", "a=b")],
)  # fmt: skip
def test_no_name_of_a_tenant_is_a_formula_where_a_spreadsheet_reads_a_report(name: str, shown: str) -> None:
    assert csv_name(name) == shown
