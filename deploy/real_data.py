"""Where the optional real data lies: the catalogue of Debian's packages with embeddings, and queries on it.

It is not part of the repository and cannot be installed. Tests that use it skip without it, in CI, too, and benchmarks
on it say that it is missing. Nothing else in the project looks at a place outside the checkout.
"""

import os
from pathlib import Path
from typing import Final

VARIABLE: Final = "TEST_DATA_DIRECTORY"
"""Environment variable with the directory. Unset: `shared/data` beside the checkout, where that is there."""

DIRECTORY: Final = Path(os.environ.get(VARIABLE) or Path(__file__).resolve().parents[2] / "shared" / "data")

PACKAGES: Final = DIRECTORY / "debian-packages.parquet"
"""Packages: id, document, metadata columns, embedding (float32 list)."""

QUERIES: Final = DIRECTORY / "debian-queries.parquet"
"""Queries: id, short (a few words), embedding."""


def is_there() -> bool:
    return PACKAGES.is_file() and QUERIES.is_file()
