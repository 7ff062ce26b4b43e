"""The body of the answer to a request of searches (docs/wire.md, section 15)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from shared.process import work
from shared.records.answers import shown_text, written
from shared.records.columns import Columns
from shared.records.model import HIDDEN_METADATA_PREFIX
from shared.search.execution import SPECIAL, SearchAnswer
from shared.search.model import DOCUMENT, EMBEDDING, METADATA, SCORE, Facets
from shared.search.source import FacetValue, Tally


def encode_searches(answers: Sequence[SearchAnswer]) -> bytes:
    """The JSON body of the answer: one entry per search in each member. Six members are always there, with null for a
    column that was not selected; `counts` and `facets`, extensions of ours, only when some search wants them.
    """
    rows = _rows(answers)
    body: dict[str, Any] = {
        "ids": [written(answer.columns.ids, rows) for answer in answers],
        "documents": _column(answers, DOCUMENT, lambda answer: answer.columns.documents or []),
        "embeddings": _column(answers, EMBEDDING, lambda answer: _matrix(answer.columns)),
        "metadatas": [written(_metadatas(answer), rows) for answer in answers],
        "scores": _column(answers, SCORE, lambda answer: answer.scores),
        "select": [selected(answer.search.select) for answer in answers],
    }
    if any(answer.search.count for answer in answers):
        body["counts"] = [answer.tally.count if answer.tally and answer.search.count else None for answer in answers]
    if any(answer.search.facets for answer in answers):
        body["facets"] = [
            _facets(answer.tally, answer.search.facets) if answer.tally and answer.search.facets else None
            for answer in answers
        ]
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def selected(keys: Sequence[str]) -> list[str]:
    """The selection as it is echoed: each key once, the special keys first."""
    return [key for key in SPECIAL if key in keys] + sorted(set(keys) - set(SPECIAL))


def _column(answers: Sequence[SearchAnswer], name: str, read: Callable[[SearchAnswer], Any]) -> list[Any]:
    rows = _rows(answers)
    return [written(read(answer), rows) if name in answer.search.select else None for answer in answers]


def _rows(answers: Sequence[SearchAnswer]) -> int:
    return sum(len(answer.columns.ids) for answer in answers)


def _matrix(columns: Columns) -> Any:
    return np.frombuffer(columns.embeddings or b"", "<f4").reshape(len(columns.ids), -1) if columns.ids else []


def _metadatas(answer: SearchAnswer) -> list[orjson.Fragment | None] | None:
    """The metadata of each record, whole or with the selected fields only; null for a record that has nothing of it."""
    texts = answer.columns.metadatas or []
    if METADATA in answer.search.select:
        return [None if text is None else _whole(text) for text in work.checked(texts)]
    fields = set(answer.search.select) - set(SPECIAL)
    return [None if text is None else _fields(text, fields) for text in work.checked(texts)] if fields else None


def _whole(text: str) -> orjson.Fragment | None:
    shown = shown_text(text)
    return None if shown == b"{}" else orjson.Fragment(shown)


def _fields(text: str, fields: set[str]) -> orjson.Fragment | None:
    members = orjson.loads(text)
    kept = {key: members[key] for key in fields & members.keys() if not key.startswith(HIDDEN_METADATA_PREFIX)}
    return orjson.Fragment(orjson.dumps(kept)) if kept else None


def _facets(tally: Tally, wanted: Facets) -> dict[str, list[dict[str, Any]]]:
    """The most frequent values of each field with their counts; equally frequent values by type and value."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key in wanted.keys:
        values = heapq.nsmallest(wanted.limit, work.checked(tally.facets.get(key, ())), key=_by_frequency)
        found[key] = [{"value": value, "count": count} for value, count in values]
    return found


def _by_frequency(value_and_count: tuple[FacetValue, int]) -> tuple[Any, ...]:
    value, count = value_and_count
    return (-count, type(value).__name__, value)
