"""The tables of settings in docs/operations.md, made from the settings themselves.

python -m tests.settings_table      writes them anew
"""

import importlib
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from shared.process.config import ROLES, ProcessConfig, Setting, settings
from tests.outside.paths import CHECKOUT

PAGE = CHECKOUT / "docs" / "operations.md"
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
DEPENDS_ON_THE_MACHINE = {
    "POLYCHROME_COMPACTOR_THREADS": "number of CPUs",
    "POLYCHROME_QUERYWORKER_THREADS": "number of CPUs",
    "POLYCHROME_EMBEDDER_THREADS": "number of CPUs",
    "POLYCHROME_COMPACTOR_SCRATCH_DIR": "in the system's temporary directory",
    "POLYCHROME_QUERYWORKER_CACHE_DIR": "in the system's temporary directory",
}


def config_types() -> dict[str, type[ProcessConfig]]:
    """Each role's config class."""
    found = {}
    for role in ROLES:
        module = importlib.import_module(f"{role}.config")
        found[role] = next(
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, ProcessConfig) and value is not ProcessConfig
        )
    return found


def tables() -> str:
    """One table for what all processes share, one for each role."""
    common = settings(ProcessConfig)
    parts = [_table("All processes", common)]
    names = {described.env for described in common}
    for role, config_type in config_types().items():
        own = [described for described in settings(config_type) if described.env not in names]
        parts.append(_table(f"{role}", own))
    return "\n".join(parts)


def _table(title: str, rows: list[Setting]) -> str:
    lines = [f"### {title}\n", "| variable | default | what it does |", "| --- | --- | --- |"]
    lines += [f"| `{row.env}` | {_default(row)} | {row.doc.replace('|', '/')} |" for row in rows]
    return "\n".join(lines) + "\n"


def _default(row: Setting) -> str:
    if row.env in DEPENDS_ON_THE_MACHINE:
        return DEPENDS_ON_THE_MACHINE[row.env]
    value: Any = row.default
    if value is MISSING:
        return "required"
    if value is None or value in ("", ()):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def written() -> str:
    """What the page has between its marks."""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0].strip()


def main() -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    Path(PAGE).write_text(f"{before}{BEGIN}\n\n{tables()}\n{END}{after}")


if __name__ == "__main__":
    main()
