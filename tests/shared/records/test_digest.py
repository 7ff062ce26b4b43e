from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from shared.records.digest import MODULUS, record_digests, to_hex, total

Row = tuple[str, tuple[float, ...], str | None, str | None, str | None]
"""Id, vector, document, metadata, uri."""


def table(rows: Sequence[Row], dimension: int = 2) -> pa.Table:
    ids, vectors, documents, metadatas, uris = zip(*rows, strict=True) if rows else ([], [], [], [], [])
    return pa.table(
        {
            "id": pa.array(ids, pa.large_string()),
            "embedding": pa.array([list(vector) for vector in vectors], pa.list_(pa.float32(), dimension)),
            "document": pa.array(documents, pa.large_string()),
            "metadata": pa.array(metadatas, pa.large_string()),
            "uri": pa.array(uris, pa.large_string()),
        }
    )


def one_by_one(row: Row) -> bytes:
    """The definition, spelled out."""
    record_id, vector, *texts = row
    parts = [record_id.encode(), np.array(vector, "<f4").tobytes(), *(t if t is None else t.encode() for t in texts)]
    header = b"".join((0xFFFFFFFF if part is None else len(part)).to_bytes(4, "little") for part in parts)
    return xxhash.xxh3_128_digest(header + b"".join(part or b"" for part in parts))


text = st.none() | st.text(max_size=5)
rows = st.lists(st.tuples(st.text(max_size=5), st.tuples(*[st.floats(width=32)] * 2), text, text, text), max_size=20)


@given(rows)
def test_the_columns_give_what_the_definition_says(rows: list[Row]) -> None:
    assert record_digests(table(rows)).to_pylist() == [one_by_one(row) for row in rows]


@given(rows, st.randoms())
def test_the_total_is_a_sum_that_knows_no_order_and_no_grouping(rows: list[Row], random: Random) -> None:
    digests = record_digests(table(rows))
    expected = sum(int.from_bytes(digest, "little") for digest in digests.to_pylist()) % MODULUS
    assert total(digests) == expected
    shuffled = list(rows)
    random.shuffle(shuffled)
    cut = random.randint(0, len(rows))
    halves = [record_digests(table(part)) for part in (shuffled[:cut], shuffled[cut:])]
    assert sum(total(half) for half in halves) % MODULUS == expected
    assert total(pa.chunked_array(halves)) == expected


@pytest.mark.parametrize(
    "other",
    [
        ("b", (1, 2), "d", None, None),
        ("a", (1, 3), "d", None, None),
        ("a", (1, 2), "e", None, None),
        ("a", (1, 2), None, "d", None),
        ("a", (1, 2), "d", "", None),
        ("a", (1, 2), "d", None, ""),
        ("ad", (1, 2), "", None, None),
        ("a", (1, -0.0), "d", None, None),
    ],
)
def test_any_difference_in_content_shows(other: Row) -> None:
    assert record_digests(table([("a", (1, 2), "d", None, None)])) != record_digests(table([other]))


def test_slices_chunks_and_many_rows() -> None:
    count = 20_000
    whole = table([(f"id{n}", (n, 1), None if n % 3 else "x", None, "u") for n in range(count)])
    digests = record_digests(whole)
    assert record_digests(whole.slice(12_345, 10)).to_pylist() == digests.to_pylist()[12_345:12_355]
    pieces = pa.concat_tables([whole.slice(0, 7), whole.slice(7)])
    assert record_digests(pieces) == digests
    assert total(digests.slice(5, 9)) == sum(int.from_bytes(d, "little") for d in digests.to_pylist()[5:14]) % MODULUS


def test_no_records_have_the_digest_zero() -> None:
    assert total(record_digests(table([]))) == 0
    assert to_hex(0) == "0" * 32


def test_a_known_value_stays_what_it_is() -> None:
    """Stored in every segment: changing it makes every bucket corrupt."""
    [digest] = record_digests(table([("id", (1.0, -2.5), "text", '{"a":1}', None)])).to_pylist()
    assert digest.hex() == one_by_one(("id", (1.0, -2.5), "text", '{"a":1}', None)).hex() == KNOWN


KNOWN = "2fdc6ab529cee7645df7a049aff7dbe9"
