"""Take out of an installed environment what no process of ours loads: slim.py <environment>, for the image.

Each rule says what goes and why it is not missed. A rule that matches nothing fails the build: its package has changed
and the rule wants another look. Afterwards every module of ours is imported and what loads its data late is used once,
by the environment's own interpreter; so what was needed after all fails the build too, and so does a missing licence.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

PACKAGES: Final = ("frontend", "logservice", "compactor", "queryworker", "embedder", "polychrome", "shared")


@dataclass(frozen=True)
class Rule:
    """Files that may go: `patterns` are globs below site-packages, `kept` names of matches that stay."""

    patterns: tuple[str, ...]
    reason: str
    kept: frozenset[str] = frozenset()


RULES: Final = (
    Rule(("**/tests", "**/_pyarrow_cpp_tests*", "**/_*_tests.*.so"), "the libraries' own tests"),
    Rule(
        ("**/include", "**/*.h", "**/*.hpp", "**/*.c", "**/*.cpp", "**/*.cc", "**/*.a", "pyarrow/src"),
        "for compiling against the libraries",
    ),
    Rule(("**/*.pyx", "**/*.pxd", "**/*.pxi", "**/*.pyi"), "sources of compiled modules, stubs for type checkers"),
    Rule(("numpy/f2py", "numpy/distutils"), "build tools for Fortran"),
    Rule(
        ("botocore/data/*/",), "services of AWS but S3, and STS, which a web identity needs", frozenset({"s3", "sts"})
    ),
    Rule(("boto3/data/*/", "boto3/examples"), "boto3's resources: only clients are used"),
    Rule(
        ("pyarrow/_flight.*", "pyarrow/flight.py", "pyarrow/libarrow_flight.so*", "pyarrow/libarrow_python_flight.so*"),
        "Arrow's RPC: ours is on raw connections",
    ),
    Rule(("pyarrow/_s3fs.*", "pyarrow/libarrow_s3.so*"), "Arrow's S3 client: objects are read through boto3"),
    Rule(
        ("pyarrow/libarrow_python*.so", "pyarrow/libarrow_python*.so.*.*.*"),
        "copies: the linker asks for the library under the name with the major version alone",
    ),
)


def matches(rule: Rule, site: Path) -> list[Path]:
    """The files that the rule takes out of that site-packages folder, none of it inside another match."""
    found = {path for pattern in rule.patterns for path in site.glob(pattern) if path.name not in rule.kept}
    return sorted(path for path in found if not found.intersection(path.parents))


def size(path: Path) -> int:
    """The bytes of a file, or of all files below a folder."""
    files = (entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else (path,)
    return sum(entry.lstat().st_size for entry in files)


def slim(site: Path) -> None:
    """Apply the rules, then strip compiled modules of the symbols that only a debugger reads."""
    for rule in RULES:
        found = matches(rule, site)
        if not found:
            raise SystemExit(f"nothing matches {' '.join(rule.patterns)}: {rule.reason}")
        print(f"{sum(map(size, found)) / 2**20:8.1f} MiB  {rule.reason}")
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    # Those in *.libs were rewritten for the wheel, which strip does not always survive, and have little to give.
    modules = [path for path in site.rglob("*.so*") if not path.parent.name.endswith(".libs")]
    before = sum(map(size, modules))
    subprocess.run(["strip", "--strip-unneeded", *modules], check=True)
    print(f"{(before - sum(map(size, modules))) / 2**20:8.1f} MiB  symbols of compiled modules")
    print(f"{size(site) / 2**20:8.1f} MiB  stay")


def check() -> None:
    """Import all of ours, and use what is loaded late or linked loosely; look for the licence. Raises whatever is
    missing.
    """
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)
    check_license(Distribution.from_name("polychrome"))
    _check_arrow()
    _check_arithmetic()
    _check_s3()
    _check_model()


def check_license(ours: Distribution) -> None:
    """Raises SystemExit unless the licence was installed: the build of a wheel says nothing when it is not there."""
    if not ours.read_text("licenses/LICENSE"):
        raise SystemExit(f"{ours.name} was built without its LICENSE")


def _check_arrow() -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pa.table({"text": ["one", "two"], "vector": [[1.0], [2.0]]})
    assert pc.match_substring_regex(table["text"], "^o").to_pylist() == [True, False]
    for codec in ("zstd", "lz4"):
        file = io.BytesIO()
        with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
            writer.write_table(table)
        assert pa.ipc.open_file(file.getvalue()).read_all() == table
    with tempfile.NamedTemporaryFile() as kept:
        pq.write_table(table, kept.name)
        assert pq.read_table(kept.name) == table


def _check_arithmetic() -> None:
    import hnswlib
    import numpy as np

    rows = np.random.default_rng(1).standard_normal((100, 8), np.float32)
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    assert np.allclose(left * values @ right, rows, atol=1e-4)
    index = hnswlib.Index("l2", 8)
    index.init_index(100)
    index.add_items(rows)
    assert index.knn_query(rows[:1], 1)[0][0][0] == 0


def _check_s3() -> None:
    import boto3

    for service in ("s3", "sts"):
        boto3.client(service, region_name="us-east-1")


def _check_model() -> None:
    from embedder.config import FILES, packaged_model
    from embedder.model import Model
    from embedder.tokens import read_tokenizer, token_ids
    from embedder.weights import read_weights

    weights, tokenizer = ((packaged_model() or Path()) / name for name in FILES)
    assert Model(read_weights(weights)).embed(token_ids(read_tokenizer(tokenizer), ["one text"])).shape == (1, 384)


if __name__ == "__main__":
    (argument,) = sys.argv[1:]
    if argument == "--check":
        check()
    else:
        (folder,) = Path(argument).glob("lib/python3*/site-packages")
        slim(folder)
        subprocess.run([Path(argument) / "bin" / "python", "-I", __file__, "--check"], check=True, cwd="/")
