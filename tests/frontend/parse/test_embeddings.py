from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frontend.parse.embeddings import Embeddings, decode, read_embeddings
from shared.errors import InvalidArgument, WrongShape


def encoded(vector: Any) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def decoded(column: Any, **options: bool) -> Embeddings:
    return decode(read_embeddings(column, **options))


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_base64_and_numbers_of_any_width_give_the_same_bits(matrix: np.ndarray) -> None:
    from_text = decoded([encoded(row) for row in matrix])
    from_numbers = decoded([[float(x) for x in row] for row in matrix])
    assert from_text.matrix.tobytes() == matrix.tobytes() == from_numbers.matrix.tobytes()
    assert from_text.widths == from_numbers.widths == (matrix.shape[1],)
    assert from_text.problem() is None


@given(st.lists(st.text(alphabet="AQgw=/+!é \n", max_size=9), min_size=1, max_size=4))
def test_the_joint_decoding_accepts_exactly_what_the_strict_one_by_one_does(rows: list[str]) -> None:
    def one_by_one() -> bytes:
        parts = []
        for row in rows:
            data = base64.b64decode(row.encode("ascii"), validate=True)
            if base64.b64encode(data).decode() != row or len(data) % 4:
                raise ValueError(row)
            parts.append(data)
        return b"".join(parts)

    try:
        expected = one_by_one()
    except ValueError:
        with pytest.raises(InvalidArgument):
            decoded(rows)
        return
    if np.isfinite(np.frombuffer(expected, dtype="<f4")).all():
        assert decoded(rows).values.tobytes() == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("!!", r"^Invalid base64 string: "),
        ("AACAPwAAgD8", r"^Invalid base64 string: "),
        ("AACAPwAAgD9=", r"^Invalid base64 string: "),  # a last symbol with bits that belong to no byte
        ("AAAA", r"^Invalid byte length: 3 bytes cannot be converted to f32 values \(must be divisible by 4\)$"),
        (encoded([np.nan, 1]), r"^Non-finite float value at embedding index 0: NaN$"),
        (encoded([1, np.inf]), r"^Non-finite float value at embedding index 1: inf$"),
        (encoded([1, 2, -np.inf]), r"^Non-finite float value at embedding index 2: -inf$"),
    ],
)
@pytest.mark.parametrize("before", [[], [encoded([1, 2])], [encoded([1, 2, 3])]])
def test_bad_base64_is_told_exactly(row: str, message: str, before: list[str]) -> None:
    with pytest.raises(InvalidArgument, match=message):
        decoded([*before, row])


def test_empty_vectors_are_a_matter_of_the_field_check() -> None:
    columns: list[list[Any]] = [[""], [[]], [[], [1.0]], [encoded([1]), ""]]
    for column in columns:
        assert decoded(column).problem() == "Each embedding must have at least 1 dimension"


def test_a_number_beyond_float32_is_a_matter_of_the_field_check() -> None:
    assert decoded([[1e39, 1]]).problem() == "Embeddings must not contain NaN or Infinity values"
    assert decoded([[1, 2], [1e39]]).problem() == "Embeddings must not contain NaN or Infinity values"


def test_different_widths_are_kept_apart() -> None:
    assert decoded([[1, 2], [1, 2, 3], [4, 5]]).widths == (2, 3)
    assert decoded([encoded([1, 2]), encoded([1, 2, 3])]).widths == (2, 3)


def test_rows_of_null_are_left_out_where_they_are_allowed() -> None:
    embeddings = decoded([None, [1, 2], None, [3, 4]], nulls_allowed=True)
    assert embeddings.present is not None
    assert embeddings.present.tolist() == [1, 3]
    assert embeddings.count == 4
    assert embeddings.matrix.tolist() == [[1, 2], [3, 4]]
    assert decoded([None], nulls_allowed=True).widths == ()
    assert decoded([encoded([5, 5]), None], nulls_allowed=True).matrix.tolist() == [[5, 5]]


@pytest.mark.parametrize(
    "column",
    [
        None,
        "x",
        {},
        [1, 2],
        [[True]],
        [["1"]],
        [[None]],
        [[[1]]],
        [[1], encoded([1])],
        [{}],
        [None],
    ],
)
def test_columns_of_another_shape_are_refused(column: Any) -> None:
    with pytest.raises(WrongShape):
        read_embeddings(column)


def test_text_is_refused_where_only_numbers_are_allowed() -> None:
    with pytest.raises(WrongShape):
        read_embeddings([encoded([1])], encoded_allowed=False)


def test_integers_round_like_floats() -> None:
    assert decoded([[16777217, 2**64 - 1]]).matrix.tolist() == [[16777216.0, 2.0**64]]
