"""Scripts say at their head what their keys, arguments and replies are, and use them by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.rooms import CHECKOUT

SCRIPTS = [path for path in sorted((CHECKOUT / "shared").rglob("*.lua")) if path.read_text().startswith("#!lua")]


def header(text: str) -> str:
    """The comment at the head of a script."""
    lines = text.splitlines()[1:]
    return "\n".join(lines[: next(number for number, line in enumerate(lines) if not line.startswith("--"))])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_explains_its_keys_and_arguments_at_its_head(path: Path) -> None:
    head = header(path.read_text())
    assert re.search(r"^-- KEYS +1", head, re.MULTILINE)
    assert re.search(r"^-- ARGV +1", head, re.MULTILINE)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_gives_keys_and_arguments_names_before_it_uses_them(path: Path) -> None:
    code = [re.sub(r"--.*", "", line) for line in path.read_text().splitlines()]
    numbered = re.compile(r"\b(KEYS|ARGV|state|fields|values)\[\d")
    assert not [line for line in code if numbered.search(line) and not line.startswith("local ")]


def test_there_are_scripts() -> None:
    assert {"append", "read", "collections", "lease"} <= {path.stem for path in SCRIPTS}
