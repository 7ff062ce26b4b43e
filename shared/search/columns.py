"""Rows of columns in another order."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import numpy as np

from shared.records.columns import Columns
from shared.vectors.arrays import Indices

Cell = TypeVar("Cell")


def taken(columns: Columns, places: Indices) -> Columns:
    """The rows at `places`, in this order. Ids are there."""
    order = places.tolist()
    if order == list(range(len(columns.ids))):
        return columns

    def pick(column: list[Cell] | None) -> list[Cell] | None:
        return None if column is None else [column[place] for place in order]

    embeddings = columns.embeddings
    if embeddings:
        embeddings = np.frombuffer(embeddings, "<f4").reshape(len(columns.ids), -1)[places].tobytes()
    return msgspec.structs.replace(
        columns,
        ids=[columns.ids[place] for place in order],
        documents=pick(columns.documents),
        metadatas=pick(columns.metadatas),
        uris=pick(columns.uris),
        embeddings=embeddings,
    )
