"""What a broken S3 server looks like from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.errors import Unavailable, UnknownOutcome
from shared.objects.port import ObjectNotFound
from shared.objects.s3 import open_s3
from tests.shared.objects.ministack import free_port

XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>m</Message></Error>"

REFUSALS = [(503, "SlowDown"), (409, "ConditionalRequestConflict"), (403, "AccessDenied"), (404, "NoSuchBucket")]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@asynccontextmanager
async def answering(monkeypatch: pytest.MonkeyPatch, status: int, code: str) -> AsyncIterator[None]:
    """A server with one answer for everything; status 0 hangs up instead."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if status:
            body = XML.format(code).encode()
            writer.write(
                b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body)
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        yield


async def test_a_server_that_is_not_there_has_applied_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    async with open_s3("bucket", "") as store:
        for call in (store.get("a"), store.put("a", b""), store.create("a", b""), store.delete(["a"])):
            with pytest.raises(Unavailable) as raised:
                await call
            assert not isinstance(raised.value, UnknownOutcome)


@pytest.mark.parametrize(("status", "code"), [(0, ""), (500, "InternalError"), (503, "ServiceUnavailable")])
async def test_a_create_that_was_sent_and_not_answered_may_have_been_applied(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    async with answering(monkeypatch, status, code), open_s3("bucket", "") as store:
        with pytest.raises(UnknownOutcome):
            await store.create("a", b"")
        for call in (store.get("a"), store.put("a", b"")):
            with pytest.raises(Unavailable) as raised:
                await call
            assert not isinstance(raised.value, UnknownOutcome)


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "SlowDown"), (409, "ConditionalRequestConflict"), (403, "AccessDenied"), (404, "NoSuchBucket")],
)
async def test_a_refused_create_was_not_applied(monkeypatch: pytest.MonkeyPatch, status: int, code: str) -> None:
    async with answering(monkeypatch, status, code), open_s3("bucket", "") as store:
        with pytest.raises(Unavailable) as raised:
            await store.create("a", b"")
        assert not isinstance(raised.value, UnknownOutcome)


async def test_only_the_answer_that_there_is_no_such_key_means_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with answering(monkeypatch, 404, "NoSuchKey"), open_s3("bucket", "") as store:
        for call in (store.get("a"), store.download("a", tmp_path / "file")):
            with pytest.raises(ObjectNotFound):
                await call
