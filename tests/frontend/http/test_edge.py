"""What surrounds every request, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
from collections.abc import AsyncIterator

import orjson
import pytest
from prometheus_client import REGISTRY

from frontend.http.errors import NO_TRACE
from tests.frontend.server import COLLECTIONS, DATABASES, Running, running

ANY_COLLECTION = f"{COLLECTIONS}/6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
HEARTBEAT = b"GET /api/v2/heartbeat HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with running() as server:
        yield server


@pytest.fixture
async def small() -> AsyncIterator[Running]:
    async with running(body_bytes_max=1000) as server:
        yield server


@pytest.mark.parametrize("path", ["/", "/api", "/api/v2/", "/api/v2//heartbeat", "/API/v2", "/api/v1", "/api/v1/"])
async def test_an_unknown_path_is_an_empty_404(server: Running, path: str) -> None:
    answer = await server.client.get(path)
    assert (answer.status_code, answer.content) == (404, b"")
    assert "content-type" not in answer.headers
    assert answer.headers["chroma-trace-id"] == NO_TRACE


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", f"{DATABASES}/default_database", "GET,HEAD,DELETE"),
        ("POST", "/api/v2/auth/identity", "GET,HEAD"),
        ("GET", "/api/v2/tenants", "POST"),
        ("PATCH", COLLECTIONS, "GET,HEAD,POST"),
        ("POST", f"{COLLECTIONS}/abc", "GET,HEAD,PUT,DELETE"),
        ("OPTIONS", "/api/v2/heartbeat", "GET,HEAD"),
        ("POST", "/api/v1/x", "GET,HEAD,PUT,PATCH,DELETE,OPTIONS"),
        ("TRACE", "/api/v2/heartbeat", "GET,HEAD"),
    ],
)
async def test_a_wrong_method_is_an_empty_405_that_names_the_right_ones(
    server: Running, method: str, path: str, allowed: str
) -> None:
    answer = await server.client.request(method, path)
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", allowed)


@pytest.mark.parametrize("path", ["/api/v2/version", f"{DATABASES}/missing", "/docs/", "/openapi.json", "/api/v1/x"])
async def test_head_answers_like_get_without_a_body(server: Running, path: str) -> None:
    get, head = await server.client.get(path), await server.client.head(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    for name in ("content-type", "content-length"):
        assert head.headers[name] == get.headers[name]


async def test_answers_are_plain_json_and_never_compressed(server: Running) -> None:
    answer = await server.client.get("/openapi.json", headers={"accept-encoding": "gzip, br, zstd"})
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-type"] == "application/json"
    assert "server" not in answer.headers


async def test_path_parameters_are_decoded_once(server: Running) -> None:
    for name, path in {"t /x": "t%20%2Fx", "a+b": "a+b", "50%25": "50%2525", "{x}": "{x}", "日本語": "日本語"}.items():
        assert (await server.client.post("/api/v2/tenants", json={"name": name})).status_code == 200
        assert (await server.client.get(f"/api/v2/tenants/{path}")).json()["name"] == name


async def test_a_path_that_is_no_text_is_refused(server: Running) -> None:
    for path, name in {"%FF%ED%A0%80": "tenant", "ten/databases/%C3": "database"}.items():
        answer = await server.client.get(f"/api/v2/tenants/{path}")
        assert answer.status_code == 400
        assert answer.json()["message"] == f"Invalid URL: Invalid UTF-8 in `{name}`"
    assert (await server.client.get("/api/v2/tenants/%25FF")).json()["message"] == "Tenant [%FF] not found"
    assert (await server.client.get("/%FF")).status_code == 404


async def test_a_gzip_body_is_a_syntax_error(server: Running) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    answer = await server.client.post("/api/v2/tenants", content=gzip.compress(b'{"name":"abc"}'), headers=headers)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("Failed to parse the request body as JSON: ")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("application/json", 200),
        ("Application/JSON ; charset=latin1", 200),
        ("application/vnd.api+json", 200),
        ("text/plain", 415),
        ("application/jsonp", 415),
        ("text/json", 415),
        ("", 415),
    ],
)
async def test_bodies_are_declared_as_json_or_not_at_all(
    server: Running, content_type: str | None, status: int
) -> None:
    declared = b"" if content_type is None else b"content-type: " + content_type.encode() + b"\r\n"
    body = b'{"name":"abc"}'
    answer = await server.raw(
        b"POST /api/v2/tenants HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        + declared
        + b"content-length: %d\r\n\r\n" % len(body)
        + body
    )
    assert answer.startswith(b"HTTP/1.1 %d " % status)


async def test_chunked_bodies_work(server: Running) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in b'{"name": "chunked"}':
            yield bytes([byte])

    assert (await server.client.post("/api/v2/tenants", content=chunks())).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_too_large_a_body_is_json_and_closes_the_connection(small: Running, chunked: bool) -> None:
    answer = await small.client.post("/api/v2/tenants", content=_body(2000, chunked=chunked))
    assert answer.status_code == 413
    assert answer.json() == {
        "error": "ChromaError",
        "message": "Failed to buffer the request body: length limit exceeded",
    }
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("route", ["add", "update", "upsert", "query", "search"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_too_large_a_body_of_records_is_plain_text(small: Running, route: str, chunked: bool) -> None:
    answer = await small.client.post(f"{ANY_COLLECTION}/{route}", content=_body(2000, chunked=chunked))
    assert (answer.status_code, answer.content) == (413, b"Payload too large")
    assert "content-type" not in answer.headers
    assert answer.headers["connection"] == "close"
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["chroma-trace-id"])


async def test_a_body_of_exactly_the_limit_is_taken(small: Running) -> None:
    body = b'{"name":"abc","x":"' + b"y" * (1000 - 21) + b'"}'
    assert len(body) == 1000
    assert (await small.client.post("/api/v2/tenants", content=body)).status_code == 200


def _body(size: int, *, chunked: bool) -> bytes | AsyncIterator[bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size // 100):
            yield b" " * 100

    return chunks() if chunked else b" " * size


async def test_a_trace_that_came_in_goes_out(server: Running) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for parent, expected in {f"00-{trace}-00f067aa0ba902b7-01": trace, "nonsense": NO_TRACE}.items():
        answer = await server.client.get("/api/v2/tenants/missing", headers={"traceparent": parent})
        assert answer.headers["chroma-trace-id"] == expected
    assert "chroma-trace-id" not in (await server.client.get("/api/v2/version")).headers


async def test_the_callers_request_id_is_kept_when_it_can_be_logged(server: Running) -> None:
    for given, kept in {"abc-1": True, "x" * 129: False, "a b": False, 'a"}': False}.items():
        answer = await server.client.get("/api/v2/version", headers={"x-request-id": given})
        assert (answer.headers["x-request-id"] == given) is kept
    assert re.fullmatch("[0-9a-f]{32}", (await server.client.get("/nope")).headers["x-request-id"])


async def test_something_away_is_503_and_comes_back(server: Running) -> None:
    server.catalog.away = True
    answer = await server.client.get("/api/v2/tenants/default_tenant")
    assert (answer.status_code, answer.json()["error"]) == (503, "ChromaError")
    health = await server.client.get("/api/v2/healthcheck")
    assert (health.status_code, health.json()["is_log_client_ready"]) == (503, False)
    server.catalog.away = False
    assert (await server.client.get("/api/v2/healthcheck")).json() == {
        "is_executor_ready": True,
        "is_log_client_ready": True,
        "status": "ready",
    }


async def test_the_unforeseen_is_500_without_details(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_name: str) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(server.catalog.tenants, "get", fail)
    answer = await server.client.get("/api/v2/tenants/abc")
    assert (answer.status_code, answer.json()) == (500, {"error": "InternalError", "message": "Internal error"})


async def test_requests_are_counted_by_route_and_never_by_path(server: Running) -> None:
    labels = {"method": "GET", "route": "/api/v2/tenants/{tenant}", "status": "404"}
    before = REGISTRY.get_sample_value("polychrome_frontend_requests_total", labels) or 0
    for name in ("one", "two"):
        await server.client.get(f"/api/v2/tenants/{name}")
    assert REGISTRY.get_sample_value("polychrome_frontend_requests_total", labels) == before + 2
    assert REGISTRY.get_sample_value("polychrome_frontend_requests_in_flight") == 0


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"GET /api/v2/tenants/\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /api/v2 HTTP/9.9\r\n\r\n",
        HEARTBEAT + b"bad header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        HEARTBEAT + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
        b"POST /api/v2/tenants HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /api/v2/tenants HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_answered_with_400_and_not_logged(
    server: Running, caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    caplog.set_level(logging.WARNING)
    answer = await server.raw(text)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert json.loads(body)["error"] == "InvalidArgumentError"
    assert b"aiohttp" not in head
    assert b"chroma-trace-id" in head.lower()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_client_that_hangs_up_in_its_body_leaves_nothing_behind(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = server.server.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'POST /api/v2/tenants HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"name": "half')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await server.client.get("/api/v2/tenants/half")).status_code == 404
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_body_that_does_not_arrive_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.http.server.LINGER_S", 0.05)
    async with running(body_timeout_s=0.05) as server:
        answer = await server.raw(
            b"POST /api/v2/tenants HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            b'content-length: 100\r\n\r\n{"name": "a',
        )
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_never_asks_is_closed_and_one_that_asked_is_not() -> None:
    async with running(first_request_timeout_s=0.05) as server:
        assert (await server.client.get("/api/v2/version")).status_code == 200
        sweeping = asyncio.create_task(server.server.close_silent_connections())
        try:
            assert await server.raw(HEARTBEAT) == b""
            assert (await server.client.get("/api/v2/version")).status_code == 200
        finally:
            sweeping.cancel()


async def test_draining_finishes_what_has_begun_and_takes_nothing_new(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_name: str) -> None:
        arrived.set()
        await go_on.wait()

    monkeypatch.setattr(server.catalog.tenants, "get", slow)
    asking = asyncio.create_task(server.client.get("/api/v2/tenants/abc"))
    await arrived.wait()
    draining = asyncio.create_task(server.server.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    go_on.set()
    answer = await asking
    await draining
    assert (answer.status_code, answer.headers["connection"]) == (404, "close")


async def test_cors_is_silent_until_origins_are_configured(server: Running) -> None:
    answer = await server.client.get("/api/v2/version", headers={"origin": "http://a.example"})
    assert "vary" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("configured", "origin", "allowed"),
    [
        (("http://a.example",), "http://a.example", "http://a.example"),
        (("http://a.example",), "http://b.example", None),
        (("*",), "http://b.example", "*"),
    ],
)
async def test_cors_answers_preflights_and_marks_errors_too(
    configured: tuple[str, ...], origin: str, allowed: str | None
) -> None:
    async with running(cors_allow_origins=configured) as server:
        for method, path, status in (("OPTIONS", "/nope", 200), ("GET", "/nope", 404), ("GET", "/api/v2", 200)):
            answer = await server.client.request(method, path, headers={"origin": origin})
            assert answer.status_code == status
            assert answer.headers.get("access-control-allow-origin") == allowed
            assert answer.headers["vary"].startswith("origin, ")


async def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    answers = await server.raw(
        b"GET /api/v2/version HTTP/1.1\r\nhost: localhost\r\n\r\n"
        b"GET /api/v2/pre-flight-checks HTTP/1.1\r\nhost: localhost\r\n"
        b"connection: close\r\n\r\n"
    )
    assert answers.index(b'"1.0.0"') < answers.index(b"max_batch_size")


async def test_expect_100_continue_is_honoured(server: Running) -> None:
    body = orjson.dumps({"name": "abc"})
    host, _, port = server.server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /api/v2/tenants HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_an_old_client_may_keep_its_connection(server: Running) -> None:
    asked = b"GET /api/v2/version HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
    answers = await server.raw(asked + b"GET /api/v2/version HTTP/1.0\r\n\r\n")
    assert answers.count(b"HTTP/1.0 200 ") == 2
    assert answers.lower().count(b"connection: keep-alive") == 1


async def test_a_request_ends_although_its_audit_event_cannot_be_made(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def note(self, _request: object, _status: int) -> None:
            raise ValueError("no event")

    monkeypatch.setattr(server.server.edge, "_audit", Failing())
    await server.raw(HEARTBEAT + b"connection: close\r\n\r\n")
    assert server.server.edge.in_flight.count == 0
    assert server.server.edge.in_flight.idle.is_set()
