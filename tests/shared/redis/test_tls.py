"""Redis over TLS: a real server that asks for certificates, and what is not trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.errors import Unavailable, UnknownOutcome
from shared.redis.client import command, open_redis
from tests.certificates import Authority
from tests.tls_redis import TlsServer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority, which the server does not trust, nor anybody the server's for it."""
    return Authority(tmp_path_factory.mktemp("tls") / "theirs")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[TlsServer]:
    running = TlsServer(tmp_path_factory.mktemp("redis-tls"), authority)
    running.start()
    yield running
    running.kill()


async def test_scripts_and_commands_go_over_encrypted_connections(server: TlsServer, authority: Authority) -> None:
    url = server.tls_url(authority.certificate, authority.sign("client"))
    async with open_redis(url) as redis:
        sha = await redis.script_load("return ARGV[1]")
        answers = await asyncio.gather(*(redis.evalsha(sha, 0, "x" * 50 * i) for i in range(40)))
        assert answers == [b"x" * 50 * i for i in range(40)]
        large = b"y" * 3_000_000
        await command(redis, "SET", "large", large)
        assert await command(redis, "GET", "large") == large


Wrong = Callable[[TlsServer, Authority, Authority], str]
"""Makes a URL of a server, its authority and another one."""


def untrusting(server: TlsServer, ours: Authority, theirs: Authority) -> str:
    return server.tls_url(theirs.certificate, ours.sign("client"))


def without_a_certificate(server: TlsServer, ours: Authority, theirs: Authority) -> str:
    return server.tls_url(ours.certificate, None)


def with_anothers_certificate(server: TlsServer, ours: Authority, theirs: Authority) -> str:
    return server.tls_url(ours.certificate, theirs.sign("client"))


def by_another_name(server: TlsServer, ours: Authority, theirs: Authority) -> str:
    return server.tls_url(ours.certificate, ours.sign("client"), host="localhost")


def by_the_systems_authorities(server: TlsServer, ours: Authority, theirs: Authority) -> str:
    return f"rediss://127.0.0.1:{server.tls_port}/0"


def in_the_clear(server: TlsServer, ours: Authority, theirs: Authority) -> str:
    return f"redis://127.0.0.1:{server.tls_port}/0"


@pytest.mark.parametrize(
    "wrong",
    [
        untrusting,
        without_a_certificate,
        with_anothers_certificate,
        by_another_name,
        by_the_systems_authorities,
        in_the_clear,
    ],
)
async def test_nothing_is_sent_where_one_side_does_not_trust_the_other(
    server: TlsServer, authority: Authority, stranger: Authority, wrong: Wrong
) -> None:
    with pytest.raises((Unavailable, UnknownOutcome)):
        async with open_redis(wrong(server, authority, stranger)):
            pass


async def test_new_certificates_of_both_sides_are_taken_without_a_restart_of_either(
    server: TlsServer, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.certificate.read_bytes())
    own = authority.sign("client")
    async with open_redis(server.tls_url(trusted, own)) as redis:
        assert await command(redis, "PING")
        # The server gets a certificate of another authority, and asks for one of it from the next connection on.
        server.pair = stranger.sign("server")
        await command(
            redis, "CONFIG", "SET", "tls-cert-file", str(server.pair.certificate), "tls-key-file",
            str(server.pair.key), "tls-ca-cert-file", str(stranger.certificate),
        )  # fmt: skip
        try:
            await redis.connection_pool.disconnect()
            trusted.write_bytes(stranger.certificate.read_bytes())
            new = stranger.sign("client")
            for source, target in ((new.certificate, own.certificate), (new.key, own.key)):
                target.write_bytes(source.read_bytes())
            assert await command(redis, "PING")
        finally:
            server.restart()  # with the files that it was started with
            await redis.connection_pool.disconnect()
