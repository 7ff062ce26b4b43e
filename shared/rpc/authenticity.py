"""The opening of a connection between two processes that have to prove that they belong to the same cluster.

Both know a secret, or two while it is rotated. Neither sends it: each proves that it knows it by a MAC over numbers
that both have just drawn. Sizes in bytes:

```text
hello    client to server   "PCS" 3 │ version 1 │ client's nonce 32 │ names of up to two secrets 8 each, else zeros
reply    server to client   "PCS" 3 │ version 1 │ server's nonce 32 │ name of the chosen secret 8 │ server's proof 32
proof    client to server   client's proof 32
frames   both ways          as `shared.rpc.frames` has them, each with a tag behind it (`shared.rpc.frame_seal`)
```

```text
name of a secret   the first 8 bytes of  MAC(secret, "name" │ client's nonce)
transcript         hello │ server's nonce │ name of the chosen secret
proof              MAC(secret, "server proof" │ transcript), or "client proof"
key of direction   MAC(secret, "server key" │ transcript),   or "client key"
```

MAC is HMAC-SHA256, and every label is filled up to 32 bytes. The server chooses the first of its own secrets that the
client has named: while a secret is rotated, both speak the newer one as soon as both know it.

Why this holds:

  * A proof answers the other side's fresh nonce, so an old one proves nothing, and a recorded connection cannot be
    played again: its keys depend on both nonces.
  * Proofs and keys name the side that made them: what a side has sent is never right when it comes back to it.
  * Who carries the bytes between two honest processes learns no key. It can read frames, and drop the connection.
  * Until a peer has proved itself a server keeps at most `HELLO_BYTES` of what it sends, and acts on nothing.

What it does not give: secrecy of the frames on the wire, and protection from a process that knows the secret.

Pure: nonces come in as arguments, bytes go in and out.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final, NamedTuple

from shared.process.cluster_secret import SECRETS_MAX
from shared.rpc.frame_seal import FrameSeal
from shared.rpc.frames import BadFrame

MARK: Final = b"PCS\x01"
NONCE_BYTES: Final = 32
NAME_BYTES: Final = 8
PROOF_BYTES: Final = 32
HELLO_BYTES: Final = len(MARK) + NONCE_BYTES + SECRETS_MAX * NAME_BYTES
REPLY_BYTES: Final = len(MARK) + NONCE_BYTES + NAME_BYTES + PROOF_BYTES

_LABEL_BYTES: Final = 32
_NO_NAME: Final = bytes(NAME_BYTES)


class NotAuthentic(BadFrame):
    """The peer has not proved that it knows a secret of this cluster."""


class Channel(NamedTuple):
    """The seals of a connection whose both sides have proved themselves, and the secret by which they did."""

    outgoing: FrameSeal
    incoming: FrameSeal
    secret: bytes


class ClientHandshake:
    """The side that opened the connection. `hello` is to be sent first; `channel` is there when both have proved
    themselves, and `rest` is what came behind the handshake.
    """

    def __init__(self, secrets: Sequence[bytes], nonce: bytes) -> None:
        self._by_name = {_name(secret, nonce): secret for secret in secrets[:SECRETS_MAX]}
        names = b"".join(self._by_name).ljust(SECRETS_MAX * NAME_BYTES, b"\0")
        self.hello = MARK + nonce + names
        self.channel: Channel | None = None
        self.rest = b""
        self._received = b""

    def feed(self, data: bytes) -> bytes:
        """Takes what came from the server, and returns what is to be sent to it. Raises NotAuthentic."""
        self._received += data
        _check_mark(self._received)
        if len(self._received) < REPLY_BYTES:
            return b""
        reply, self.rest = self._received[:REPLY_BYTES], self._received[REPLY_BYTES:]
        self._received = b""
        said, proof = reply[len(MARK) : -PROOF_BYTES], reply[-PROOF_BYTES:]
        secret = self._by_name.get(said[NONCE_BYTES:])
        transcript = self.hello + said
        if secret is None or not hmac.compare_digest(proof, _mac(secret, b"server proof", transcript)):
            raise NotAuthentic("the server has not proved that it belongs to this cluster")
        self.channel = Channel(
            FrameSeal(_mac(secret, b"client key", transcript)),
            FrameSeal(_mac(secret, b"server key", transcript)),
            secret,
        )
        return _mac(secret, b"client proof", transcript)


class ServerHandshake:
    """The side that was called. `channel` is there when both have proved themselves, and `rest` is what came behind the
    handshake.
    """

    def __init__(self, secrets: Sequence[bytes], nonce: bytes) -> None:
        self._secrets = secrets
        self._nonce = nonce
        self._received = b""
        self._transcript = b""
        self._secret: bytes | None = None
        self.channel: Channel | None = None
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Takes what came from the client, and returns what is to be sent to it. Raises NotAuthentic."""
        if self._secret is not None:
            self._check_proof(self._secret, data)
            return b""
        if len(self._received) + len(data) > HELLO_BYTES:
            _check_mark(self._received + data[: len(MARK)])
            raise NotAuthentic("more than a hello, and no proof")
        self._received += data
        _check_mark(self._received)
        return self._reply() if len(self._received) == HELLO_BYTES else b""

    def _reply(self) -> bytes:
        hello, self._received = self._received, b""
        client_nonce, names = hello[len(MARK) : len(MARK) + NONCE_BYTES], hello[len(MARK) + NONCE_BYTES :]
        offered = {names[at : at + NAME_BYTES] for at in range(0, len(names), NAME_BYTES)} - {_NO_NAME}
        for secret in self._secrets:
            name = _name(secret, client_nonce)
            if name in offered:
                said = self._nonce + name
                self._secret, self._transcript = secret, hello + said
                return MARK + said + _mac(secret, b"server proof", self._transcript)
        raise NotAuthentic("the client names no secret of this cluster")

    def _check_proof(self, secret: bytes, data: bytes) -> None:
        missing = PROOF_BYTES - len(self._received)
        self._received += data[:missing]
        if len(self._received) < PROOF_BYTES:
            return
        if not hmac.compare_digest(self._received, _mac(secret, b"client proof", self._transcript)):
            raise NotAuthentic("the client has not proved that it belongs to this cluster")
        self.rest = data[missing:]
        self.channel = Channel(
            FrameSeal(_mac(secret, b"server key", self._transcript)),
            FrameSeal(_mac(secret, b"client key", self._transcript)),
            secret,
        )


Handshake = ClientHandshake | ServerHandshake


def _check_mark(received: bytes) -> None:
    """Raises NotAuthentic as soon as the bytes cannot be the beginning of a handshake."""
    if not MARK.startswith(received[: len(MARK)]):
        raise NotAuthentic("the peer does not prove that it belongs to this cluster")


def _name(secret: bytes, client_nonce: bytes) -> bytes:
    return _mac(secret, b"name", client_nonce)[:NAME_BYTES]


def _mac(secret: bytes, label: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, label.ljust(_LABEL_BYTES, b"\0") + message, "sha256")
