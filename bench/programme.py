"""Which parts there are, on which stage each plays, and in which order."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import disturbances, fairness, parts
from bench.data import Dataset, debian, synthetic
from bench.series import Series
from bench.stage import Scale, Stage


@dataclass(frozen=True)
class Part:
    name: str
    stage: str
    measure: Callable[[Stage], Iterable[Series]]


@dataclass(frozen=True)
class StagePlan:
    """`filled`: a collection holds the whole dataset before the first part."""

    name: str
    dataset: Callable[[Scale, Path], Dataset]
    filled: bool = True
    with_chroma: bool = True


def _real(scale: Scale, directory: Path) -> Dataset:
    if not (directory / "debian-packages.parquet").exists():
        sys.exit(f"no debian-packages.parquet in {directory}: name its folder with --data")
    return debian(directory, scale.rows)


def _wide(scale: Scale, _directory: Path) -> Dataset:
    return synthetic("wide", scale.wide_rows, 768)


def _large(scale: Scale, _directory: Path) -> Dataset:
    return synthetic("large", scale.many_rows, 128)


def _neighbours(scale: Scale, directory: Path) -> Dataset:
    return _real(scale, directory).head("neighbours", scale.few_rows)


STAGES: Final = {
    plan.name: plan
    for plan in (
        StagePlan("real", _real),
        StagePlan("empty", _real, filled=False),
        StagePlan("wide", _wide),
        StagePlan("large", _large, with_chroma=False),
        StagePlan("neighbours", _neighbours, with_chroma=False),
    )
}

# What changes a collection, or stops servers, comes last on its stage.
PARTS: Final = {
    part.name: part
    for part in (
        Part("ingest", "real", parts.ingest),
        Part("memory", "real", parts.memory),
        Part("queries", "real", parts.queries),
        Part("filters", "real", parts.where),
        Part("texts", "real", parts.texts),
        Part("gets", "real", parts.reads),
        Part("concurrency", "real", parts.concurrency),
        Part("small", "real", parts.small),
        Part("busy", "real", disturbances.busy),
        Part("writes", "real", parts.writes),
        Part("restart", "real", disturbances.restart),
        Part("beams", "real", parts.beams),
        Part("collections", "empty", disturbances.collections),
        Part("wide", "wide", parts.common_lines),
        Part("large", "large", parts.common_lines),
        Part("fairness", "neighbours", fairness.fairness),
    )
}


def chosen(names: Sequence[str]) -> Iterable[tuple[StagePlan, list[Part]]]:
    """The parts of these names, or of the stages of these names, by stage; all for no name, none for `page`."""
    if list(names) == ["page"]:
        return []
    if unknown := set(names) - set(PARTS) - set(STAGES):
        sys.exit(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    wanted = [part for part in PARTS.values() if not names or part.name in names or part.stage in names]
    by_stage = {name: [part for part in wanted if part.stage == name] for name in STAGES}
    return [(STAGES[name], found) for name, found in by_stage.items() if found]
