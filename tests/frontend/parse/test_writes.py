from __future__ import annotations

from typing import Any

import pytest

from frontend.parse.writes import check_lengths, check_values, check_width, read_write
from frontend.write.writes import prepare
from shared.errors import InvalidArgument, PolychromeError, WrongShape
from shared.records.model import Op

LENGTHS = "Inconsistent number of IDs, embeddings, documents, URIs and metadatas"


def refused(body: dict[str, Any], op: Op = Op.ADD, dimension: int | None = 2) -> PolychromeError:
    """What becomes of a write that must not be accepted."""
    write = read_write(op, body)
    try:
        prepared = prepare(write, dimension, 1)
    except PolychromeError as error:
        return error
    assert prepared.operations is None
    assert prepared.refusal is not None
    return prepared.refusal


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": None, "embeddings": [[1, 1]]},
        {"ids": "x", "embeddings": [[1, 1]]},
        {"ids": [1], "embeddings": [[1, 1]]},
        {"ids": [None], "embeddings": [[1, 1]]},
        {"ids": ["a"]},
        {"ids": ["a"], "embeddings": None},
        {"ids": ["a"], "embeddings": [None]},
        {"ids": ["a"], "embeddings": [1, 1]},
        {"ids": ["a"], "embeddings": [[1]], "documents": [1]},
        {"ids": ["a"], "embeddings": [[1]], "documents": "x"},
        {"ids": ["a"], "embeddings": [[1]], "uris": [{}]},
        {"ids": ["a"], "embeddings": [[1]], "metadatas": {}},
        {"ids": ["a"], "embeddings": [[1]], "metadatas": [5]},
    ],
)
@pytest.mark.parametrize("op", [Op.ADD, Op.UPSERT])
def test_another_shape_is_refused(body: dict[str, Any], op: Op) -> None:
    with pytest.raises(WrongShape, match=r"^Failed to deserialize the JSON body into the target type: "):
        read_write(op, body)


def test_an_update_needs_only_ids() -> None:
    write = read_write(Op.UPDATE, {"ids": ["a", "b"]})
    assert check_values(write) is None
    check_lengths(write)
    assert check_values(read_write(Op.UPDATE, {"ids": ["a"], "embeddings": [None]})) is None


def test_metadata_comes_before_the_dimension_the_dimension_before_lengths_lengths_before_empty_ids() -> None:
    bad: dict[str, Any] = {"ids": ["", "c"], "embeddings": [[1, 2, 3]], "metadatas": [{"#x": 1}]}
    assert refused(bad).message == "Validation error: metadatas: Invalid metadata at index 0"
    del bad["metadatas"]
    assert refused(bad).message == "Collection expecting embedding with dimension of 2, got 3"
    bad["embeddings"] = [[1, 2]]
    assert refused(bad).message == LENGTHS
    bad["embeddings"] = [[1, 2], [3, 4]]
    assert refused(bad).message == "Empty ID, ID must have at least one character"


def test_base64_comes_before_the_metadata() -> None:
    bad = {"ids": ["a"], "embeddings": ["!!"], "metadatas": [{"#x": 1}]}
    assert refused(bad).message.startswith("Invalid base64 string: ")


def test_several_bad_fields_are_all_named() -> None:
    bad = {"ids": ["a"], "embeddings": [[]], "metadatas": [{"#x": 1}]}
    assert refused(bad).message == (
        "Validation error: metadatas: Invalid metadata at index 0\n"
        "embeddings: Each embedding must have at least 1 dimension"
    )


def test_rows_of_different_width_are_refused_whatever_the_collection_expects() -> None:
    body = {"ids": ["a", "b"], "embeddings": [[1, 2], [1, 2, 3]]}
    for dimension in (None, 2, 3, 4):
        assert refused(body, dimension=dimension).message == "Inconsistent dimensions in provided embeddings"


@pytest.mark.parametrize("column", ["documents", "uris", "metadatas"])
def test_a_column_that_is_there_must_be_as_long_as_the_ids(column: str) -> None:
    assert refused({"ids": ["a"], "embeddings": [[1, 1]], column: []}).message == LENGTHS
    assert refused({"ids": [], column: [None]}, Op.UPDATE).message == LENGTHS


def test_a_late_refusal_still_knows_the_width_that_fixes_the_dimension() -> None:
    late = prepare(read_write(Op.ADD, {"ids": ["a", "b"], "embeddings": [[1, 2, 3]]}), None, 1)
    assert late.width == 3
    assert isinstance(late.refusal, InvalidArgument)


def test_the_width_is_that_of_the_rows_that_are_there() -> None:
    embeddings = check_values(read_write(Op.UPDATE, {"ids": ["a", "b"], "embeddings": [None, [1, 2, 3]]}))
    assert embeddings is not None
    assert check_width(embeddings, None) == 3
