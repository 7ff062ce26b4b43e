"""The columns that a client wants in an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shared.records.model import Include

GET_DEFAULT: Final = (Include.DOCUMENTS, Include.METADATAS)
QUERY_DEFAULT: Final = (Include.DOCUMENTS, Include.METADATAS, Include.DISTANCES)


class Wanted:
    """The columns that an answer has, and whether it is explained. `given` is echoed as it was sent, order and repeats
    included.
    """

    __slots__ = ("distances", "documents", "embeddings", "explain", "given", "metadatas", "uris")

    def __init__(self, given: Sequence[Include], *, explain: bool = False) -> None:
        self.given = list(given)
        self.explain = explain
        self.distances = Include.DISTANCES in given
        self.documents = Include.DOCUMENTS in given
        self.embeddings = Include.EMBEDDINGS in given
        self.metadatas = Include.METADATAS in given
        self.uris = Include.URIS in given

    @property
    def uris_or_metadatas(self) -> bool:
        """Whether uris have to be read: they are shown, or say whether missing metadata is shown as `{}` or null."""
        return self.uris or self.metadatas
