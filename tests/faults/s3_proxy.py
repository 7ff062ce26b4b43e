"""A proxy in front of an S3 server that refuses, on demand, to write, or to do anything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cluster.stores import ObjectStorage, S3Endpoint, ministack_storage

HEAD_BYTES_MAX = 64 * 1024
WRITES = frozenset({b"PUT", b"POST", b"DELETE"})
REFUSED = b"<Error><Code>AccessDenied</Code><Message>refused by a test</Message></Error>"


class FaultProxy:
    """Passes each request on over a connection of its own. While `read_only`, requests that write are answered with
    403; while `away`, connections are closed without an answer.
    """

    def __init__(self, upstream: S3Endpoint) -> None:
        self.read_only = False
        self.away = False
        self.refused = 0
        self._host, _, port = upstream.address.partition(":")
        self._port = int(port)
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, with one request."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)  # an event loop has no more than a weak hold of a task
        try:
            await self._answer(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def close(self) -> None:
        """Ends what is left of connections."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if self.away:
                self.refused += 1
            elif self.read_only and head.split(b" ", 1)[0] in WRITES:
                self.refused += 1
                writer.write(
                    b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(REFUSED), REFUSED)
                )
                await writer.drain()
            else:
                await self._pass_on(head, reader, writer)

    async def _pass_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        request_line, headers = head.split(b"\r\n", 1)
        kept = [line for line in headers.split(b"\r\n") if line and not line.lower().startswith(b"connection:")]
        up_writer.write(b"\r\n".join([request_line, *kept, b"Connection: close", b"", b""]))
        sending = asyncio.create_task(_copy(reader, up_writer))
        try:
            await _copy(up_reader, writer)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            up_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(HEAD_BYTES_MAX):
            writer.write(data)
            await writer.drain()


@contextmanager
def faulty_storage(directory: Path) -> Iterator[tuple[ObjectStorage, FaultProxy]]:
    """A bucket of an S3 server behind a proxy, which runs in a thread of its own."""
    with ministack_storage(directory) as behind:
        assert behind.endpoint is not None
        proxy, loop = FaultProxy(behind.endpoint), asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX))
        thread = threading.Thread(target=loop.run_forever, name="s3-proxy")
        thread.start()
        try:
            port = server.sockets[0].getsockname()[1]
            yield ObjectStorage(behind.url, S3Endpoint(f"http://127.0.0.1:{port}")), proxy
        finally:
            loop.call_soon_threadsafe(server.close)
            asyncio.run_coroutine_threadsafe(proxy.close(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
