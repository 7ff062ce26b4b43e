"""What a frontend asks of an embedder, and what it gets back. Encoded as msgpack by msgspec."""

from __future__ import annotations

from typing import Final

import msgspec

EMBED: Final = "embed"
"""The method's name."""


class EmbedRequest(msgspec.Struct, frozen=True):
    """Texts of any length, the empty one included; what the model does not look at is ignored."""

    texts: list[str]


class EmbedResponse(msgspec.Struct, frozen=True):
    """One vector per text, in their order: little-endian float32 [texts, dimension], each of length 1."""

    embeddings: bytes
    dimension: int
