"""`group_by`: of records that agree in some metadata, only the best few are kept (docs/wire.md, section 15). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.process import work
from shared.search.model import SCORE, GroupBy
from shared.search.value_order import Key, score_key, value_key, values_key


def kept_of_groups(group_by: GroupBy, scores: Sequence[float], metadatas: Sequence[Mapping[str, Any]]) -> list[int]:
    """Indices of the records that are kept, ascending. Records are given, as parallel `scores` and `metadatas`, in the
    order of the answer: of equal records the first is kept.
    """
    groups: dict[Key, list[int]] = {}
    for index, metadata in enumerate(work.checked(metadatas)):
        groups.setdefault(values_key(metadata, group_by.keys), []).append(index)

    def standing(index: int) -> Key:
        metadata = metadatas[index]
        return tuple(
            [score_key(scores[index]) if key == SCORE else value_key(metadata.get(key)) for key in group_by.by]
        )

    kept: list[int] = []
    for members in work.checked(groups.values()):
        if len(members) > group_by.k:
            members = sorted(members, key=standing, reverse=group_by.greatest)[: group_by.k]  # noqa: PLW2901 (stable)
        kept += members
    return sorted(kept)
