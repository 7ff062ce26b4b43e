from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from frontend.read.queries import empty_query_body
from shared.records.answers import encode_get, encode_query
from shared.records.columns import Columns
from shared.records.include import GET_DEFAULT, QUERY_DEFAULT, Wanted
from shared.records.model import Include

ALL = list(Include)
VECTORS = np.array([[0.1, 16777217], [1, -2], [3e38, 1e-20]], dtype="<f4")
COLUMNS = Columns(
    ids=["a", "b", "c"],
    documents=["doc", None, ""],
    metadatas=['{"k":2.0,"n":[1,2]}', None, None],
    uris=[None, None, "u://c"],
    embeddings=VECTORS.tobytes(),
    dimension=2,
)


def test_a_get_has_all_six_members_and_null_for_what_is_not_wanted() -> None:
    assert json.loads(encode_get(COLUMNS, Wanted(()))) == {
        "ids": ["a", "b", "c"],
        "embeddings": None,
        "documents": None,
        "uris": None,
        "metadatas": None,
        "include": [],
    }
    assert json.loads(encode_get(COLUMNS, Wanted(GET_DEFAULT)))["documents"] == ["doc", None, ""]


def test_the_include_list_is_echoed_as_sent() -> None:
    wanted = Wanted([Include.URIS, Include.DISTANCES, Include.URIS])
    assert json.loads(encode_get(COLUMNS, wanted))["include"] == ["uris", "distances", "uris"]


def test_floats_are_written_as_short_as_float32_allows() -> None:
    text = encode_get(COLUMNS, Wanted([Include.EMBEDDINGS]))
    assert b'"embeddings":[[0.1,16777216.0],[1.0,-2.0],[3e+38,1e-20]]' in text


def test_metadata_keeps_the_spelling_of_its_numbers() -> None:
    assert b'"metadatas":[{"k":2.0,"n":[1,2]},null,{}]' in encode_get(COLUMNS, Wanted([Include.METADATAS]))


@pytest.mark.parametrize(
    ("text", "uri", "shown"),
    [
        (None, None, "null"),
        (None, "", "{}"),
        (None, "u", "{}"),
        ('{"chroma:x":1}', None, "{}"),
        ('{"chroma:x":1,"a":1.0}', None, '{"a":1.0}'),
        ('{"a":"\\"chroma:"}', None, '{"a":"\\"chroma:"}'),
        ('{"a":"chroma:x"}', "u", '{"a":"chroma:x"}'),
    ],
)
def test_what_a_client_sees_of_metadata(text: str | None, uri: str | None, shown: str) -> None:
    columns = Columns(ids=["a"], metadatas=[text], uris=[uri])
    assert f'"metadatas":[{shown}]'.encode() in encode_get(columns, Wanted([Include.METADATAS]))


def test_nothing_found_is_empty_lists_where_something_was_wanted() -> None:
    nothing = Columns(ids=[], documents=[], metadatas=[], uris=[], embeddings=b"")
    answer = json.loads(encode_get(nothing, Wanted(ALL)))
    assert {name: answer[name] for name in ("ids", "embeddings", "documents", "uris", "metadatas")} == {
        "ids": [],
        "embeddings": [],
        "documents": [],
        "uris": [],
        "metadatas": [],
    }


def test_a_query_has_an_inner_list_per_query() -> None:
    found = ([2, 0, 1], np.array([0, np.inf, np.nan], dtype=np.float32), COLUMNS)
    answer: dict[str, Any] = json.loads(encode_query(*found, Wanted(ALL)))
    assert answer["ids"] == [["a", "b"], [], ["c"]]
    assert answer["documents"] == [["doc", None], [], [""]]
    assert answer["distances"] == [[0.0, None], [], [None]]
    assert answer["metadatas"] == [[{"k": 2.0, "n": [1, 2]}, None], [], [{}]]
    assert answer["embeddings"] == [[[0.1, 16777216.0], [1.0, -2.0]], [], [[3e38, 1e-20]]]
    assert json.loads(encode_query(*found, Wanted(())))["distances"] is None


@pytest.mark.parametrize("n_queries", [0, 1, 3])
def test_a_collection_without_records_answers_every_query(n_queries: int) -> None:
    answer = json.loads(empty_query_body(n_queries, Wanted(QUERY_DEFAULT)))
    assert answer["ids"] == answer["documents"] == answer["metadatas"] == answer["distances"] == [[]] * n_queries
    assert answer["embeddings"] is None
    assert json.loads(empty_query_body(n_queries, Wanted(ALL)))["embeddings"] == [[]] * n_queries


def test_a_long_answer_is_written_in_pieces_that_are_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 40
    columns = Columns(
        ids=[f"r{number}" for number in range(count)],
        documents=[None if number % 3 else f"d{number}" for number in range(count)],
        metadatas=[None if number % 4 else f'{{"n":{number}}}' for number in range(count)],
        uris=[None] * count,
        embeddings=np.arange(3 * count, dtype="<f4").tobytes(),
        dimension=3,
    )
    counts, distances = [0, 7, 1, 32], np.arange(count, dtype=np.float32)
    whole = encode_query(counts, distances, columns, Wanted(ALL))
    monkeypatch.setattr("shared.records.answers.PIECE_ROWS", 3)
    monkeypatch.setattr("shared.records.answers.PIECE_NUMBERS", 8)
    assert encode_query(counts, distances, columns, Wanted(ALL)) == whole
