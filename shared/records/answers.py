"""The JSON bodies of the answers to get and query. The worker writes them where one shard is the whole collection, else
the frontend that merged the answers of several shards.

Metadata goes from the segment to the client as the text that is stored; it is parsed only to hide keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from shared.errors import InvalidArgument
from shared.records.columns import Columns
from shared.records.explanation import Explanation
from shared.records.include import Wanted
from shared.records.model import HIDDEN_METADATA_PREFIX
from shared.records.selection import Selection
from shared.vectors.arrays import Distances, Vectors

CHUNK_NUMBERS: Final = 256 * 1024
"""How many numbers of embeddings one chunk of an answer has: some 8 ms of work, and 3 MiB, whose memory the C library
keeps for the next chunk.
"""

EMPTY: Final = orjson.Fragment(b"{}")
"""The metadata that a record without any shows when it has a uri."""

_HIDDEN_KEY: Final = f'"{HIDDEN_METADATA_PREFIX}'


def encode_get(columns: Columns, wanted: Wanted, explanations: Sequence[Explanation] = ()) -> bytes:
    """The body of a get's answer. It always has all six members; a column that is not wanted is null. `explain` is
    there only when it is wanted, with the explanation of each shard.
    """
    return b"".join(get_chunks(columns, wanted, explanations))


def get_chunks(columns: Columns, wanted: Wanted, explanations: Sequence[Explanation] = ()) -> Iterator[bytes]:
    """The body of a get's answer in chunks: numbers take long to write, and what is written can be sent meanwhile."""
    members = {
        "ids": columns.ids,
        "embeddings": _matrix(columns) if wanted.embeddings else None,
        "documents": columns.documents if wanted.documents else None,
        "uris": columns.uris if wanted.uris else None,
        "metadatas": shown_metadatas(columns) if wanted.metadatas else None,
        "include": wanted.given,
    } | _explained(wanted, explanations)
    rows = max(1, CHUNK_NUMBERS // max(1, columns.dimension))
    if not wanted.embeddings or len(columns.ids) <= rows:
        yield _encode(members)
        return
    yield _encode({"ids": members.pop("ids")})[:-1] + b',"embeddings":['
    matrix = members.pop("embeddings")
    for at in range(0, len(matrix), rows):
        numbers = memoryview(_encode(matrix[at : at + rows]))[1:-1]
        yield b"".join((b"," if at else b"", numbers))
    yield b"]," + _encode(members)[1:]


def encode_query(
    counts: Sequence[int],
    distances: Distances,
    columns: Columns,
    wanted: Wanted,
    explanations: Sequence[Explanation] = (),
) -> bytes:
    """The body of a query's answer: the members of a get's, and distances, each with one inner list per query.
    `distances` and the columns have the rows of all queries, end to end: `counts[0]` of the first one, and so on.
    """
    bounds = list(pairwise(accumulate(counts, initial=0)))

    def per_query(values: Any, is_wanted: bool) -> list[Any] | None:
        return [values[start:end] for start, end in bounds] if is_wanted else None

    return _encode(
        {
            "ids": per_query(columns.ids, True),
            "embeddings": per_query(_matrix(columns) if wanted.embeddings else None, wanted.embeddings),
            "documents": per_query(columns.documents, wanted.documents),
            "uris": per_query(columns.uris, wanted.uris),
            "metadatas": per_query(shown_metadatas(columns) if wanted.metadatas else None, wanted.metadatas),
            "distances": per_query(distances, wanted.distances),
            "include": wanted.given,
        }
        | _explained(wanted, explanations)
    )


def _explained(wanted: Wanted, explanations: Sequence[Explanation]) -> dict[str, Any]:
    return {"explain": msgspec.to_builtins(explanations)} if wanted.explain else {}


def refuse_unknown_ids(selection: Selection, k: int, columns: Columns) -> None:
    """Raises InvalidArgument for a query that is restricted to ids of which none exists: Chroma's own tests want its
    error, and an answer without hits would hide the mistake. Unknown ids beside known ones are ignored.
    """
    if k and selection.ids and selection.where is None and not columns.ids:
        raise InvalidArgument("Error executing plan: Internal error: Error finding id")


def shown_metadatas(columns: Columns) -> list[orjson.Fragment | None]:
    """The metadata of each record as a client sees it. A record without any shows null, but `{}` when it has a uri or
    hidden keys only: so it is in the reference, which stores these in the metadata, and clients show either as it is.
    """
    texts = columns.metadatas or []
    uris: Sequence[str | None] = columns.uris or [None] * len(texts)
    return [
        (EMPTY if uri is not None else None) if text is None else orjson.Fragment(shown_text(text))
        for text, uri in zip(texts, uris, strict=True)
    ]


def shown_text(text: str) -> bytes | str:
    """The JSON text of metadata without its hidden keys."""
    if _HIDDEN_KEY not in text:
        return text
    members = orjson.loads(text)
    return orjson.dumps({key: value for key, value in members.items() if not key.startswith(HIDDEN_METADATA_PREFIX)})


def _matrix(columns: Columns) -> Vectors | list[Any]:
    if not columns.ids:
        return []
    return np.frombuffer(columns.embeddings or b"", dtype="<f4").reshape(len(columns.ids), -1)


def _encode(answer: Any) -> bytes:
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
