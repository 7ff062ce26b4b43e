"""A frontend that others than this machine can reach does not start without authentication, unless told so."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from frontend.config import FrontendConfig
from frontend.http.listener import Listener
from frontend.service import _open_access
from shared.process.config import ConfigError, read

COMMON = {"REDIS_URL": "redis://127.0.0.1:1", "POLYCHROME_BUCKET_URL": "file:///nowhere"}
HOST, AUTH = "POLYCHROME_FRONTEND_HOST", "POLYCHROME_FRONTEND_AUTH"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_an_address_that_others_reach_needs_authentication_or_so_many_words(host: str) -> None:
    with pytest.raises(ConfigError, match="off-on-every-address"):
        read(FrontendConfig, COMMON | {HOST: host})
    for mode in ("keys", "off-on-every-address"):
        assert read(FrontendConfig, COMMON | {HOST: host, AUTH: mode}).auth == mode


def test_credentials_are_not_given_in_vain() -> None:
    with pytest.raises(ConfigError, match="set it to `keys`"):
        read(FrontendConfig, COMMON | {"POLYCHROME_FRONTEND_BOOTSTRAP_KEY_FILE": "/some/file"})


def test_the_addresses_of_inherited_sockets_are_their_own() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listener = Listener("0.0.0.0", 0, False, 1.0, 1.0, (listening.fileno(),))
        assert listener.addresses() == ["127.0.0.1"]
        assert replace(listener, fds=()).addresses() == ["0.0.0.0"]


async def test_an_inherited_socket_that_others_reach_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting of the address says nothing of it."""
    config = read(FrontendConfig, COMMON)
    await _open_access(config, None)
    monkeypatch.setattr(Listener, "addresses", lambda _: ["127.0.0.1", "192.0.2.1"])
    with pytest.raises(ConfigError, match=r"listening on 192\.0\.2\.1"):
        await _open_access(config, None)
    await _open_access(read(FrontendConfig, COMMON | {AUTH: "off-on-every-address"}), None)
