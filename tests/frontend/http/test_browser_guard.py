"""A browser is no way in: attack 16, a page that writes to a server on the machine of its reader."""

from __future__ import annotations

import asyncio

import pytest

from frontend.http.browser_guard import BrowserGuard
from shared.errors import Forbidden
from tests.frontend.server import DATABASES, running

HERE = {"Host": "localhost:8000"}


def refused(guard: BrowserGuard, method: str, headers: dict[str, str]) -> bool:
    try:
        guard.check(method, headers)
    except Forbidden:
        return True
    return False


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9000"},
        {"Origin": "file://localhost:8000"},
        {"Origin": "http://localhost:8000.evil.example"},
        {"Origin": "http://[::1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(headers: dict[str, str]) -> None:
    guard = BrowserGuard(frozenset({"https://ours.example"}))
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert refused(guard, method, {**HERE, **headers})
    assert not refused(guard, "GET", {**HERE, **headers})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost:8000"},
        {"Origin": "HTTP://LOCALHOST:8000"},
        {"Origin": "https://ours.example", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_programs_our_own_pages_and_those_that_cors_allows_write(headers: dict[str, str]) -> None:
    assert not refused(BrowserGuard(frozenset({"https://ours.example"})), "POST", {**HERE, **headers})


def test_any_origin_means_any() -> None:
    guard = BrowserGuard(frozenset({"*"}))
    assert not refused(guard, "POST", {**HERE, "Origin": "null"})
    assert not refused(guard, "POST", {**HERE, "Sec-Fetch-Site": "cross-site"})


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("10.1.2.3", True),
        ("db.example:8000", True),
        ("evil.example", False),
        ("localhost.evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example:8000@localhost", True),
        ("[::1", False),
        ("", False),
    ],
)
def test_a_name_that_a_page_could_point_here_is_not_ours(host: str, *, answered: bool) -> None:
    guard = BrowserGuard(hosts=frozenset({"db.example"}))
    assert refused(guard, "GET", {"Host": host}) is not answered
    assert not refused(BrowserGuard(), "GET", {"Host": host})


async def raw(port: int, *lines: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join((*lines, "Connection: close", "", "")).encode())
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def test_a_listener_on_the_loopback_address_refuses_both() -> None:
    async with running() as server:
        port = server.client.base_url.port or 0
        rebound = await raw(port, "GET /api/v2/heartbeat HTTP/1.1", "Host: evil.example")
        assert rebound.startswith("HTTP/1.1 403 ")
        assert (await raw(port, "GET /api/v2/heartbeat HTTP/1.0")).startswith("HTTP/1.0 200 ")
        form = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
        answer = await server.client.post(DATABASES, content=b'{"name": "theirs"}', headers=form)
        assert answer.status_code == 403
        assert (await server.client.get(f"{DATABASES}/theirs")).status_code == 404
        answer = await server.client.post(DATABASES, content=b'{"name": "ours"}')
        assert answer.status_code == 200


async def test_answers_are_no_documents_and_those_with_a_credential_are_kept_nowhere() -> None:
    async with running() as server:
        for path in ("/api/v2/heartbeat", "/docs/", "/openapi.json", "/nothing"):
            assert (await server.client.get(path)).headers["x-content-type-options"] == "nosniff"
        page = await server.client.get("/docs/")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["referrer-policy"] == "no-referrer"
        assert "cache-control" not in page.headers
        for name in ("Authorization", "X-Chroma-Token"):
            answer = await server.client.get("/api/v2/heartbeat", headers={name: "Bearer x"})
            assert answer.headers["cache-control"] == "no-store"
