"""`group_by`: of records that agree in some metadata, only the best few stay (docs/wire.md, section 15). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.search.model import SCORE, GroupBy
from shared.search.value_order import Key, score_key, value_key, values_key


def survivors(group_by: GroupBy, scores: Sequence[float], metadatas: Sequence[Mapping[str, Any]]) -> list[int]:
    """Places of the records that stay, ascending. Records are given in the order of the answer: of equal ones the first
    stays.
    """
    groups: dict[Key, list[int]] = {}
    for place, metadata in enumerate(metadatas):
        groups.setdefault(values_key(metadata, group_by.keys), []).append(place)

    def standing(place: int) -> Key:
        metadata = metadatas[place]
        return tuple(
            [score_key(scores[place]) if key == SCORE else value_key(metadata.get(key)) for key in group_by.by]
        )

    kept: list[int] = []
    for places in groups.values():
        if len(places) > group_by.k:
            places = sorted(places, key=standing, reverse=group_by.greatest)[: group_by.k]  # noqa: PLW2901 (stable)
        kept += places
    return sorted(kept)
