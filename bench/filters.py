"""Filters of a wanted selectivity, with many different values, and which rows they match.

A line of the benchmark draws from a *family*: filters of the same kind whose values and matches differ, so that an
answer or a bitmap that is kept from one request helps little with the next.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from bench.data import Dataset
from shared.vectors.arrays import Mask

VALUES_MAX: Final = 200
_WORDS_SAMPLED_FROM: Final = 20_000
_SOME: Final = (0.006, 0.015)
_TEXTS_MAX: Final = 25

Filter = dict[str, Any]
"""Members of a request body: `where`, `where_document`."""


@dataclass(frozen=True)
class Family:
    """`share`: the mean part of the rows that its filters match."""

    name: str
    filters: Sequence[Filter]
    share: float


def wheres(dataset: Dataset) -> list[Family]:
    """Metadata filters over five selectivities, then their combinations."""
    random = np.random.default_rng(5)
    shares = (0.001, 0.01, 0.1, 0.5, 0.99)
    return [
        _family("maintainer =", dataset, _equals(dataset, ("maintainer",), 0.0006, 0.0015)),
        _family("section or maintainer =", dataset, _equals(dataset, ("section", "maintainer"), 0.006, 0.015)),
        _family("section $in", dataset, _sections_in(dataset, random, 0.09, 0.11)),
        _family("architecture =", dataset, _equals(dataset, ("architecture",), 0.4, 0.6)),
        _family("section $ne", dataset, _section_differs(dataset)),
        *(
            _family(f"range of installed_size, {share * 100:g} %", dataset, _ranges(dataset, random, share))
            for share in shares
        ),
        _family("$and of three", dataset, _three_at_once(dataset, random)),
        _family("maintainer $in 20", dataset, _maintainers_in(dataset, random, 20)),
    ]


def few_wheres(dataset: Dataset) -> list[Family]:
    """The measurements at every size."""
    random = np.random.default_rng(6)
    return [
        _family("section or maintainer =", dataset, _equals(dataset, ("section", "maintainer"), 0.006, 0.015)),
        _family("range of installed_size, 50 %", dataset, _ranges(dataset, random, 0.5)),
    ]


def texts(dataset: Dataset) -> list[Family]:
    """Document filters: words that are rare, common and in between; expressions with and without a literal part."""
    words = Words(dataset)
    rare, some, common = words.between(0.0007, 0.0015), words.between(*_SOME), words.between(0.05, 0.2)
    contained = {"0.1 %": rare, "1 %": some, "10 %": common}
    return [
        *(_family(f"$contains, {share}", dataset, _contain(kind)) for share, kind in contained.items()),
        _family("$regex with a word", dataset, [_document("$regex", rf"\b{word}(s|ed|ing|er)?\b") for word in some]),
        _family("$regex, any case", dataset, [_document("$regex", rf"(?i)\b{word}\b") for word in some]),
    ]


def few_texts(dataset: Dataset) -> list[Family]:
    return [_family("$contains, 1 %", dataset, _contain(Words(dataset).between(*_SOME)))]


def mask(dataset: Dataset, chosen: Filter) -> Mask:
    """The rows that a filter matches."""
    rows = np.ones(len(dataset), dtype=bool)
    if "where" in chosen:
        rows &= _where_mask(dataset, chosen["where"])
    if "where_document" in chosen:
        ((operator, pattern),) = chosen["where_document"].items()
        test = pc.match_substring if operator == "$contains" else pc.match_substring_regex
        rows = rows & test(dataset.text, pattern=pattern).to_numpy(zero_copy_only=False)
    return rows


def _where_mask(dataset: Dataset, where: dict[str, Any]) -> Mask:
    ((key, wanted),) = where.items()
    if key == "$and":
        return np.asarray(np.logical_and.reduce([_where_mask(dataset, one) for one in wanted]))
    column = dataset.columns[key]
    if not isinstance(wanted, dict):
        return np.asarray(column == wanted)
    ((operator, operand),) = wanted.items()
    operators: dict[str, Callable[[], Any]] = {
        "$ne": lambda: column != operand,
        "$in": lambda: np.isin(column, operand),
        "$gt": lambda: column > operand,
        "$gte": lambda: column >= operand,
        "$lt": lambda: column < operand,
    }
    return np.asarray(operators[operator]())


def _family(name: str, dataset: Dataset, filters: Sequence[Filter]) -> Family:
    if not filters:
        raise ValueError(f"no value of {dataset.key} makes a filter like {name!r}")
    chosen = filters[:VALUES_MAX]
    sample = chosen[:: max(1, len(chosen) // 25)]
    return Family(name, chosen, float(np.mean([mask(dataset, one).mean() for one in sample])))


def _document(operator: str, pattern: str) -> Filter:
    return {"where_document": {operator: pattern}}


def _contain(words: Sequence[str]) -> list[Filter]:
    return [_document("$contains", word) for word in words]


def _values(dataset: Dataset, key: str, low: float, high: float) -> list[str]:
    """Values of the field that between `low` and `high` of the rows have, in an order that is not by frequency."""
    counts = Counter(dataset.columns[key].tolist())
    return sorted(value for value, count in counts.items() if low * len(dataset) <= count <= high * len(dataset))


def _equals(dataset: Dataset, keys: Sequence[str], low: float, high: float) -> list[Filter]:
    return [{"where": {key: value}} for key in keys for value in _values(dataset, key, low, high)]


def _section_differs(dataset: Dataset) -> list[Filter]:
    return [{"where": {"section": {"$ne": value}}} for value in _values(dataset, "section", 0.005, 0.02)]


def _sections_in(dataset: Dataset, random: np.random.Generator, low: float, high: float) -> list[Filter]:
    counts = Counter(dataset.columns["section"].tolist())
    names = sorted(counts)
    found: list[Filter] = []
    while len(found) < VALUES_MAX:
        chosen: list[str] = []
        total = 0.0
        for place in random.permutation(len(names)):
            if total + (share := counts[names[place]] / len(dataset)) <= high:
                chosen.append(names[place])
                total += share
            if total >= low:
                found.append({"where": {"section": {"$in": chosen}}})
                break
    return found


def _maintainers_in(dataset: Dataset, random: np.random.Generator, count: int) -> list[Filter]:
    names = sorted(set(dataset.columns["maintainer"].tolist()))
    picks = (random.choice(len(names), min(count, len(names)), replace=False) for _ in range(VALUES_MAX))
    return [{"where": {"maintainer": {"$in": [names[place] for place in pick]}}} for pick in picks]


def _ranges(dataset: Dataset, random: np.random.Generator, share: float) -> list[Filter]:
    """Windows of the sorted sizes; from a half on, everything above a number."""
    sizes = np.sort(dataset.columns["installed_size"])
    width = max(1, round(share * len(sizes)))
    found: list[Filter] = []
    for _ in range(VALUES_MAX):
        if share >= 0.5:
            begin = round(len(sizes) * (1 - share) * random.uniform(0.9, 1.1))
            found.append({"where": {"installed_size": {"$gte": int(sizes[begin])}}})
            continue
        # where sizes repeat less than the window is wide
        begin = int(random.integers(int(len(sizes) * 0.4), int(len(sizes) * 0.99) - width))
        low, high = int(sizes[begin]), int(sizes[begin + width])
        bounds = [{"installed_size": {"$gte": low}}, {"installed_size": {"$lt": max(high, low + 1)}}]
        found.append({"where": {"$and": bounds}})
    return found


def _three_at_once(dataset: Dataset, random: np.random.Generator) -> list[Filter]:
    common = [section for section, _ in Counter(dataset.columns["section"].tolist()).most_common(10)]
    sizes = np.sort(dataset.columns["installed_size"])
    return [
        {
            "where": {
                "$and": [
                    {"section": common[number % len(common)]},
                    {"has_homepage": True},
                    {"installed_size": {"$lt": int(sizes[round(len(sizes) * random.uniform(0.3, 0.7))])}},
                ]
            }
        }
        for number in range(VALUES_MAX)
    ]


class Words:
    """How many documents contain a word, also inside of others."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        step = max(1, len(dataset) // _WORDS_SAMPLED_FROM)
        sample = dataset.documents[::step]
        counts = Counter(word for text in sample for word in set(re.findall(r"\b[a-z]{4,14}\b", text)))
        self._guesses = {word: count / len(sample) for word, count in counts.items()}

    def between(self, low: float, high: float, count: int = _TEXTS_MAX) -> list[str]:
        """Words that this part of the documents contains."""
        likely = sorted(word for word, share in self._guesses.items() if low / 3 <= share <= high)
        likely = [likely[place] for place in np.random.default_rng(7).permutation(len(likely))[: count * 4]]
        found: list[str] = []
        for word in likely:
            if low <= pc.sum(pc.match_substring(self._dataset.text, word)).as_py() / len(self._dataset) <= high:
                found.append(word)
            if len(found) == count:
                break
        return found
