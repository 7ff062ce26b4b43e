"""The requests of a frontend to an embedder, and their responses. Encoded as msgpack by msgspec."""

from __future__ import annotations

from typing import Final

import msgspec

from shared.rpc.method import Method


class EmbedRequest(msgspec.Struct, frozen=True):
    """Texts of any length, the empty one included; what the model does not look at is ignored."""

    texts: list[str]


class EmbedResponse(msgspec.Struct, frozen=True):
    """A vector per text, in their order: little-endian float32 [texts, dimension], each of length 1. `tokens`: how many
    tokens the model has taken for all of them.
    """

    embeddings: bytes
    dimension: int
    tokens: int = 0


EMBED: Final = Method("embed", EmbedRequest, EmbedResponse)
"""The only method of an embedder."""
