"""The rooms of each package and which of them use which, read off the imports: `python -m tests.rooms`.

A room is a sub-package, or a module that lies directly in a package. `ORDER` says how the rooms of a package lie above
each other; `tests/test_tidy.py` holds the imports against it.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[1]

PROCESSES: Final = ("frontend", "logservice", "compactor", "queryworker", "embedder")
PACKAGES: Final = (*PROCESSES, "polychrome", "shared")

ORDER: Final[dict[str, tuple[frozenset[str], ...]]] = {
    package: tuple(frozenset(layer.split()) for layer in layers)
    for package, layers in {
        "shared": (
            "errors limits",
            "process",
            "vectors",
            "records",
            "memtable search",
            "redis rpc objects",
            "cluster segment tenancy",
            "log",
            "manifest catalog",
            "history",
        ),
        "queryworker": (
            "thread_pool work_memory filter",
            "view",
            "query shards",
            "calls cache_dir config",
            "service",
            "__main__",
        ),
        "frontend": (
            "concurrency request_limits uuids",
            "access",
            "admission",
            "http",
            "audit parse",
            "collections",
            "embed read",
            "write",
            "routes",
            "config",
            "context",
            "app",
            "service",
            "__main__",
        ),
        "polychrome": (
            "append_only bucket loss_report progress redis_users",
            "secret_files",
            "local",
            "location",
            "answering audited",
            "audit backup control repair_redis status",
            "verify",
            "__main__",
        ),
        "logservice": (
            "audit damage garbage healing loops scheduling trimming writable",
            "accounting catalog config",
            "erasing restoring",
            "leader",
            "service",
            "__main__",
        ),
    }.items()
}
"""From the lowest layer to the highest. A room imports rooms of lower layers; modules of one room import each other.
Rooms of one layer don't: they lie beside each other because neither needs the other.
"""


@cache
def modules(*packages: str) -> list[Path]:
    """All Python files of the packages, in order."""
    return [path for package in packages for path in sorted((CHECKOUT / package).rglob("*.py"))]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name(path: Path) -> str:
    """The file's path from the root of the checkout."""
    return path.relative_to(CHECKOUT).as_posix()


def dotted(path: Path) -> str:
    """The module's name as an import has it."""
    return name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def known() -> frozenset[str]:
    """The names of all modules and packages."""
    return frozenset(map(dotted, modules(*PACKAGES)))


def imports(path: Path) -> Iterator[str]:
    """What the file imports, module by module; `from package import module` means that module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: imports are absolute"
            source = str(node.module)
            named = {f"{source}.{alias.name}" for alias in node.names}
            yield from {imported if imported in known() else source for imported in named}


def room(module: str) -> str:
    """The room of a module: the first name below its package, `""` for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def arrows(package: str) -> dict[str, dict[str, int]]:
    """For each room of the package the rooms of it that its modules import, and by how many imports."""
    found: dict[str, dict[str, int]] = {}
    for path in modules(package):
        own = room(dotted(path))
        used = found.setdefault(own, {})
        for imported in imports(path):
            other = room(imported)
            if imported.partition(".")[0] == package and other not in {"", own}:
                used[other] = used.get(other, 0) + 1
    return {own: used for own, used in found.items() if own}


def picture(package: str) -> Iterator[str]:
    """The rooms from the highest to the lowest, each with its size and what it uses."""
    found = arrows(package)
    sizes = {own: [path for path in modules(package) if room(dotted(path)) == own] for own in found}
    lines = sum(len(path.read_text().splitlines()) for paths in sizes.values() for path in paths)
    yield f"{package}  {len(modules(package))} modules, {lines:,} lines"
    layers = ORDER.get(package, (frozenset(found),))
    for layer in reversed(layers):
        for own in sorted(layer & found.keys()):
            used = sorted(found[own].items(), key=lambda pair: (-pair[1], pair[0]))
            shown = ", ".join(f"{other} {count}" for other, count in used)
            yield f"  {own:14}{len(sizes[own]):4} modules  {'-> ' + shown if shown else ''}".rstrip()
        if len(layers) > 1:
            yield "  " + "-" * 60


def between() -> Iterator[str]:
    """The packages and which of them use which."""
    for package in PACKAGES:
        used: dict[str, int] = {}
        for path in modules(package):
            for imported in imports(path):
                other = imported.partition(".")[0]
                if other in PACKAGES and other != package:
                    used[other] = used.get(other, 0) + 1
        yield f"{package:14}-> " + ", ".join(f"{other} {count}" for other, count in sorted(used.items()))


def main() -> None:
    lines = [*between()]
    for package in ORDER:
        lines += ["", *picture(package)]
    try:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough; Python would flush once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
