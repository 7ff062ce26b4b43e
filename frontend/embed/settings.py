"""The settings of embedding endpoints, which an operator gives in the environment. Nothing here comes from a client."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Attempts = Annotated[int, msgspec.Meta(ge=1, le=10)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=600)]
Name = Annotated[str, msgspec.Meta(min_length=1)]

LOCAL_MODEL: Final = "all-MiniLM-L6-v2"
"""The embedding model that the embedder processes run."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An OpenAI-compatible endpoint `/v1/embeddings`. `url` is the whole address. `dimensions`, where given, is asked
    for, and other dimensions are refused. `batch` texts go in one request, and one frontend sends up to `concurrency`
    requests at once. A request that fails for a passing reason is sent up to `attempts` times in all, each within
    `timeout_s` seconds.
    """

    url: str
    model: Name
    dimensions: Count | None = None
    batch: Count = 64
    concurrency: Count = 4
    timeout_s: Seconds = 30.0
    attempts: Attempts = 3


Endpoints = tuple[tuple[str, Endpoint], ...]
"""Pairs of an embedding function's name and its endpoint."""

Keys = tuple[tuple[str, str], ...]
"""Pairs of an embedding function's name and its endpoint's secret key."""


_ENDPOINTS: Final = msgspec.json.Decoder(dict[Name, Endpoint])
_KEYS: Final = msgspec.json.Decoder(dict[Name, str])


def parse_endpoints(text: str) -> Endpoints:
    """The endpoints of a setting, a JSON object by name. Raises ValueError with a sentence."""
    try:
        given = _ENDPOINTS.decode(text or "{}")
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected a JSON object of endpoints by name: {error}") from None
    for name, endpoint in given.items():
        parts = urlsplit(endpoint.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the url of {name} is none such as https://api.openai.com/v1/embeddings")
    return tuple(given.items())


def parse_keys(text: str) -> Keys:
    """The keys of a setting, a JSON object by name. Raises ValueError with a sentence that shows no key."""
    try:
        return tuple(_KEYS.decode(text or "{}").items())
    except msgspec.MsgspecError:
        raise ValueError("expected a JSON object of keys by the names of their endpoints") from None


def embedding_problems(local: tuple[str, ...], endpoints: Endpoints, keys: Keys, default: str) -> list[str]:
    """The problems of these settings together, a sentence for each. `local` are the names that the embedder
    processes stand for.
    """
    names = [*local, *(name for name, _ in endpoints)]
    problems = [f"{name!r} names two embedding functions" for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [
        f"POLYCHROME_FRONTEND_EMBEDDING_KEYS: {name!r} is none of the endpoints"
        for name, _ in keys
        if name not in dict(endpoints)
    ]
    if default and default not in names:
        problems.append(f"POLYCHROME_FRONTEND_EMBEDDER_DEFAULT: {default!r} names no embedding function")
    return problems
