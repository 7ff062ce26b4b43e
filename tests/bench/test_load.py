"""The load generator against a server that answers as told."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench import load

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"


def answer(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def server(*answers: bytes) -> Iterator[int]:
    """Answers requests of one connection in turn; `{path}` in one becomes the path, as long as that."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for one in answers:
                    if not (request := read(connection)):
                        return
                    connection.sendall(one.replace(b"{path}", request.split()[1].ljust(6)))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


def read(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    told = re.search(rb"content-length: (\d+)", head)
    while len(body) < (int(told[1]) if told else 0):
        body += connection.recv(1 << 20)
    return head


def test_each_request_is_sent_once_and_its_answer_kept() -> None:
    requests = [load.Request("POST", path, b"{}") for path in ("/a", "/b")]
    with server(answer(b"{path}"), answer(b"{path}")) as port:
        done = load.run(load.Work(port, requests, clients=1, keep=2))
    assert done.answers == {0: b"/a    ", 1: b"/b    "}
    assert done.numbers.tolist() == [0, 1]
    assert done.count == 2


def test_a_body_larger_than_the_sockets_buffer_arrives() -> None:
    with server(answer(b"ok")) as port:
        done = load.run(load.Work(port, [load.Request("POST", "/", b"x" * 20_000_000)], clients=1, keep=1))
    assert done.answers == {0: b"ok"}


def test_an_answer_in_chunks_is_put_together() -> None:
    with server(CHUNKED, answer(b"next")) as port:
        done = load.run(load.Work(port, [load.Request("GET", "/")] * 2, clients=1, keep=2))
    assert done.answers == {0: b"abcde", 1: b"next"}


def test_an_error_ends_the_work_and_is_shown() -> None:
    with (
        server(answer(b'{"error": "Backoff"}', "429 Too Many Requests")) as port,
        pytest.raises(RuntimeError, match=r"GET /x: 429 .*Backoff"),
    ):
        load.run(load.Work(port, [load.Request("GET", "/x")], clients=1))


def test_a_connection_that_closes_is_an_error() -> None:
    with server(answer(b"1")) as port, pytest.raises(ConnectionError):
        load.run(load.Work(port, [load.Request("GET", "/")] * 2, clients=1))


def test_work_with_a_time_goes_round_from_its_first_request_until_it_is_told_to_stop() -> None:
    requests = [load.Request("GET", f"/{number}") for number in range(3)]
    with server(*[answer(b"{path}")] * 1_000_000) as port:
        running = load.Running(load.Work(port, requests, clients=1, seconds=60.0, first=2, keep=3))
        try:
            running.stop()
            done = running.result()
        finally:
            running.end()
    expected = [2, 0, 1] * (done.count // 3 + 1)
    assert done.numbers.tolist() == expected[: done.count]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 201 Created\r\ncontent-length: 12\r\ndate: x", (201, 12)),
        (b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0", (200, 0)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", (200, None)),
    ],
)
def test_heads(head: bytes, expected: tuple[int, int | None]) -> None:
    assert load.answer_head(head) == expected
