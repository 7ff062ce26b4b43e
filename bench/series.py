"""Measurements: one quantity of one line, in all runs, of all who take part. Kept as JSON from run to run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

CHROMA: Final = "Chroma"
POLYCHROME: Final = "Polychrome"
HNSWLIB: Final = "hnswlib"


@dataclass(frozen=True)
class Quantity:
    """`higher`: whether more is better; None for what is only shown."""

    title: str
    unit: str
    higher: bool | None


QUANTITIES: Final = {
    "p50_ms": Quantity("p50", "ms", False),
    "p99_ms": Quantity("p99", "ms", False),
    "per_s": Quantity("throughput", "1/s", True),
    "cpu_ms": Quantity("CPU each", "ms", False),
    "recall": Quantity("recall", "", True),
    "rows_per_s": Quantity("rows", "rows/s", True),
    "cpu_ms_per_row": Quantity("CPU of a row", "ms", False),
    "bytes_per_row": Quantity("memory of a row", "B", False),
    "mib": Quantity("memory", "MiB", False),
    "seconds": Quantity("time", "s", False),
    "errors": Quantity("4xx and 5xx", "", False),
}


@dataclass(frozen=True)
class Series:
    """`data`: key of the dataset. `quantity`: one of QUANTITIES. `clients`: 0 where that means nothing. `values`: by
    participant, one for each run.
    """

    data: str
    line: str
    quantity: str
    values: dict[str, list[float]]
    clients: int = 0
    detail: str = ""

    def __post_init__(self) -> None:
        if self.quantity not in QUANTITIES:
            raise ValueError(f"no quantity {self.quantity!r}")

    def median(self, who: str) -> float | None:
        return median(values) if (values := self.values.get(who)) else None

    def times_better(self) -> float | None:
        """How many times better Polychrome is than Chroma; below 1 it is worse."""
        ours, theirs = self.median(POLYCHROME), self.median(CHROMA)
        if ours is None or theirs is None:
            return None
        above, below = (ours, theirs) if QUANTITIES[self.quantity].higher else (theirs, ours)
        return above / below if below > 0 else float("inf")


@dataclass
class PartResult:
    """`error`: why the part is not complete."""

    when: str
    effort: str
    """Name of the scale; the files of earlier results call it so."""
    commit: str
    took_s: float
    datasets: dict[str, str]
    series: list[Series] = field(default_factory=list)
    error: str | None = None


@dataclass
class Results:
    """The results of all parts, each as it was run last."""

    parts: dict[str, PartResult] = field(default_factory=dict)

    def all(self) -> list[Series]:
        return [series for part in self.parts.values() for series in part.series]

    def find(self, data: str, line: str, quantity: str, clients: int = 0) -> Series | None:
        wanted = (data, line, quantity, clients)
        return next((s for s in self.all() if (s.data, s.line, s.quantity, s.clients) == wanted), None)

    def lines(self, data: str, part: str) -> list[str]:
        """In the order of measuring."""
        chosen = self.parts.get(part)
        return list(dict.fromkeys(s.line for s in chosen.series if s.data == data)) if chosen else []

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(".new")
        written.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
        written.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Empty when there is no file yet."""
        if not path.exists():
            return cls()
        stored: dict[str, Any] = orjson.loads(path.read_bytes())["parts"]
        return cls({name: _part(part) for name, part in stored.items()})


def _part(stored: dict[str, Any]) -> PartResult:
    return PartResult(**{**stored, "series": [Series(**series) for series in stored["series"]]})


def samples(
    data: str,
    line: str,
    by_who: Mapping[str, Sequence[Any]],
    quantities: Iterable[str],
    clients: int = 0,
    detail: str = "",
) -> list[Series]:
    """Series of the attributes `quantities` of samples."""
    return [
        Series(
            data,
            line,
            quantity,
            {who: [getattr(sample, quantity) for sample in found] for who, found in by_who.items()},
            clients,
            detail,
        )
        for quantity in quantities
    ]
