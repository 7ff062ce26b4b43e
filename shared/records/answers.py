"""The JSON bodies of the answers to get and query. The worker writes them where one shard is the whole collection, else
the frontend that merged the answers of several shards.

Metadata goes from the segment to the client as the text that is stored; it is parsed only to hide keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from shared.errors import InvalidArgument
from shared.process import work
from shared.records.columns import Columns
from shared.records.explanation import Explanation
from shared.records.include import Wanted
from shared.records.model import HIDDEN_METADATA_PREFIX
from shared.records.selection import Selection
from shared.vectors.arrays import Distances, Vectors

EMPTY: Final = orjson.Fragment(b"{}")
"""The metadata that a record without any shows when it has a uri."""

PIECE_NUMBERS: Final = 256 * 1024
PIECE_ROWS: Final = 1024
"""Numbers of embeddings, and other values, that are written at once: some 8 ms, in which the interpreter does nothing
else."""

_HIDDEN_KEY: Final = f'"{HIDDEN_METADATA_PREFIX}'


def encode_get(columns: Columns, wanted: Wanted, explanations: Sequence[Explanation] = ()) -> bytes:
    """The body of a get's answer. It always has all six members; a column that is not wanted is null. `explain` is
    there only when it is wanted, with the explanation of each shard.
    """
    return encode_json(
        {
            "ids": columns.ids,
            "embeddings": matrix(columns.embeddings, len(columns.ids)) if wanted.embeddings else None,
            "documents": columns.documents if wanted.documents else None,
            "uris": columns.uris if wanted.uris else None,
            "metadatas": shown_metadatas(columns) if wanted.metadatas else None,
            "include": wanted.given,
        }
        | _explained(wanted, explanations)
    )


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

    rows = len(columns.ids)

    def per_query(values: Any, is_wanted: bool) -> list[Any] | None:
        return [written(values[start:end], rows) for start, end in bounds] if is_wanted else None

    return encode_json(
        {
            "ids": per_query(columns.ids, True),
            "embeddings": per_query(
                matrix(columns.embeddings, len(columns.ids)) if wanted.embeddings else None, wanted.embeddings
            ),
            "documents": per_query(columns.documents, wanted.documents),
            "uris": per_query(columns.uris, wanted.uris),
            "metadatas": per_query(shown_metadatas(columns) if wanted.metadatas else None, wanted.metadatas),
            "distances": per_query(distances, wanted.distances),
            "include": wanted.given,
        }
        | _explained(wanted, explanations)
    )


def written(values: Any, rows: int) -> Any:
    """A list or an array as it goes into an answer of so many rows: itself when these are few, and its JSON when they
    are many, made piece by piece, with a look before each at whether the work is still wanted.
    """
    if values is None or rows <= PIECE_ROWS:
        return values
    step = PIECE_ROWS
    if isinstance(values, np.ndarray) and values.ndim > 1:
        step = max(1, PIECE_NUMBERS // max(1, values.shape[1]))
    pieces: list[bytes] = []
    for at in range(0, len(values), step):
        work.check()
        pieces.append(encode_json(values[at : at + step])[1:-1])
    return orjson.Fragment(b"[" + b",".join(pieces) + b"]")


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
        for text, uri in zip(work.checked(texts) if len(texts) > PIECE_ROWS else texts, uris, strict=True)
    ]


def shown_text(text: str) -> bytes | str:
    """The JSON text of metadata without its hidden keys."""
    if _HIDDEN_KEY not in text:
        return text
    members = orjson.loads(text)
    return orjson.dumps({key: value for key, value in members.items() if not key.startswith(HIDDEN_METADATA_PREFIX)})


def matrix(embeddings: bytes | None, count: int) -> Vectors | list[Any]:
    """Embeddings as rows, float32 [count, dimension]; an empty list without any, whose dimension may not be known."""
    if not count:
        return []
    return np.frombuffer(embeddings or b"", dtype="<f4").reshape(count, -1)


def encode_json(answer: Any) -> bytes:
    """JSON as all answers have it: numpy arrays are lists, numbers that are not finite are null."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
