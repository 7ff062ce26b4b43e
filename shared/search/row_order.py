"""Columns of records with their rows in another order."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import numpy as np

from shared.records.columns import Columns
from shared.vectors.arrays import Indices

Cell = TypeVar("Cell")


def take_rows(columns: Columns, indices: Indices) -> Columns:
    """The rows at `indices` [n], in this order. The columns have ids."""
    order = indices.tolist()
    if order == list(range(len(columns.ids))):
        return columns

    def pick(column: list[Cell] | None) -> list[Cell] | None:
        return None if column is None else [column[index] for index in order]

    embeddings = columns.embeddings
    if embeddings:
        embeddings = np.frombuffer(embeddings, "<f4").reshape(len(columns.ids), -1)[indices].tobytes()
    return msgspec.structs.replace(
        columns,
        ids=[columns.ids[index] for index in order],
        documents=pick(columns.documents),
        metadatas=pick(columns.metadatas),
        uris=pick(columns.uris),
        embeddings=embeddings,
    )
