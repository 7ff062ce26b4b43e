"""The embedding functions of the server, and which of them embeds a collection's texts.

Functions are registered by the operator, by name (`frontend.config`). The function that a client has stored with its
collection selects one of these by that name and does nothing else: it is compared, never loaded, called or fetched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from prometheus_client import Counter, Histogram

from frontend.http.errors import EmbeddingFailed
from shared.errors import DeadlineExceeded, InvalidArgument, PolychromeError
from shared.process.telemetry import get_logger
from shared.vectors.arrays import Vectors

if TYPE_CHECKING:
    from shared.catalog import Collection

NO_FUNCTION: Final = (
    "The collection names no embedding function and the server has no default one; send embeddings with the request"
)

TEXTS_MAX: Final = 100_000
"""Most texts of one request that are embedded. A body has space for ten million short ones, whose vectors would fill
the memory."""

TEXTS = Counter("polychrome_frontend_texts_embedded_total", "Texts embedded for clients.", ["function"])
FAILURES = Counter("polychrome_frontend_embedding_failures_total", "Embeddings that failed.", ["function", "code"])
SECONDS = Histogram(
    "polychrome_frontend_embedding_seconds",
    "Time to embed the texts of a request.",
    ["function"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

log = get_logger(__name__)


class Embedder(Protocol):
    """An embedding function: turns texts into vectors."""

    @property
    def model(self) -> str:
        """The model's name, without its publisher's."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, float32 [texts, dimension], in their order. There is at least one text. Raises
        EmbeddingFailed, Backoff (busy), InvalidArgument (the texts are refused).
        """
        ...


class Embedders:
    """The registered embedding functions by name. `default` is the function of collections that name none. False when
    no function is registered: then requests need embeddings and texts do not stand for them.
    """

    def __init__(self, by_name: Mapping[str, Embedder], default: str | None, timeout_s: float) -> None:
        self._by_name = by_name
        self._default = default
        self._timeout_s = timeout_s

    def __bool__(self) -> bool:
        return bool(self._by_name)

    async def embed(self, collection: Collection, texts: Sequence[str]) -> Vectors:
        """The vectors of texts by the collection's function: float32 [texts, dimension], finite, in their order. The
        dimension is the function's: the caller compares it with the collection's. Raises InvalidArgument when there is
        no function for this collection or the texts are refused, Backoff, EmbeddingFailed, DeadlineExceeded.
        """
        name = self.chosen(collection.configuration.get("embedding_function"))
        if not texts:
            return np.empty((0, 0), np.float32)
        if len(texts) > TEXTS_MAX:
            raise InvalidArgument(f"At most {TEXTS_MAX} texts of a request are embedded, not {len(texts)}")
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                vectors = _checked(name, await self._by_name[name].embed(texts), len(texts))
        except PolychromeError as error:
            FAILURES.labels(name, error.code).inc()
            raise
        except TimeoutError:
            FAILURES.labels(name, DeadlineExceeded.code).inc()
            raise DeadlineExceeded(f"{len(texts)} texts were not embedded in {self._timeout_s:g} s") from None
        SECONDS.labels(name).observe(time.perf_counter() - began_s)
        TEXTS.labels(name).inc(len(texts))
        return vectors

    def chosen(self, function: Mapping[str, Any] | None) -> str:
        """The name of the registered function that a collection's stored one selects. Raises InvalidArgument."""
        if function is None or function["type"] != "known":
            if self._default is None:
                raise InvalidArgument(NO_FUNCTION)
            return self._default
        name = str(function["name"])
        embedder = self._by_name.get(name)
        if embedder is None:
            registered = ", ".join(sorted(self._by_name))
            raise InvalidArgument(
                f"The embedding function '{name}' is not registered with this server, which has: {registered}; "
                "send embeddings with the request"
            )
        wanted = _model_of(function.get("config"))
        if wanted is not None and wanted.rpartition("/")[2].lower() != embedder.model.lower():
            raise InvalidArgument(
                f"The collection's embedding function uses the model '{wanted}', this server's '{name}' another; "
                "send embeddings with the request"
            )
        return name


def names_function(collection: Collection) -> bool:
    """Whether the collection itself selects an embedding function."""
    function = collection.configuration.get("embedding_function")
    return function is not None and function["type"] == "known"


def _model_of(config: Any) -> str | None:
    """The model that a stored function asks for, by the member that the official clients write."""
    model = config.get("model_name") if isinstance(config, dict) else None
    return model if isinstance(model, str) else None


def _checked(name: str, vectors: Vectors, count: int) -> Vectors:
    """The vectors, if there are `count` of them, of one dimension and finite. Raises EmbeddingFailed."""
    if vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1] or not np.isfinite(vectors).all():
        log.warning("embedding_unusable", function=name, shape=vectors.shape, texts=count)
        raise EmbeddingFailed(name, "answered with something other than one vector per text")
    return vectors
