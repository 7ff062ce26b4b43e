"""Docstrings and pages: names in them exist, and a docstring says what it describes by its noun."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.rooms import CHECKOUT, PACKAGES, modules, name, tree

NAMED = re.compile(rf"`((?:{'|'.join((*PACKAGES, 'deploy', 'bench', 'tests'))})(?:\.\w+)+)(?:\(\))?`")
"""A dotted name of ours in backticks."""

RIDDLE = re.compile(
    r"(?:The same|See the module|See above|How (?:soon|often|much|long)|So (?:many|much)|It|Who|What|One|Of)\b"
)
"""Beginnings of docstrings that have to be guessed: a pronoun in the place of the noun."""


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and texts of a module's docstrings: of the module, classes and functions, and those below a constant."""
    for node in ast.walk(tree(path)):
        for child in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                yield child.lineno, child.value.value


@cache
def _defined(path: Path) -> frozenset[str]:
    """Names that a module or its classes define, import or assign."""
    names = set[str]()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return frozenset(names)


def _exists(dotted_name: str) -> bool:
    """Whether it is a package, a module, a file of one, or an attribute of a module or of a class in one."""
    parts = dotted_name.split(".")
    for length in range(len(parts), 0, -1):
        path = CHECKOUT.joinpath(*parts[:length])
        rest = parts[length:]
        if not rest and (path.is_dir() or any(path.with_suffix(end).exists() for end in (".py", ".lua"))):
            return True
        module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if rest and module.exists():
            return len(rest) <= 2 and set(rest) <= _defined(module)
    return False


def test_every_name_of_ours_in_backticks_exists() -> None:
    pages = [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")]
    texts = [(name(page), page.read_text()) for page in pages]
    for path in modules(*PACKAGES, "deploy", "bench", "examples", "tests"):
        texts += [(f"{name(path)}:{line}", text) for line, text in _docstrings(path)]
    named = [(where, found[1]) for where, text in texts for found in NAMED.finditer(text)]
    assert named
    assert not [f"{where}: {dotted_name}" for where, dotted_name in named if not _exists(dotted_name)]


def test_no_docstring_begins_with_a_riddle() -> None:
    wrong = [
        f"{name(path)}:{line}: {text.splitlines()[0]}"
        for path in modules(*PACKAGES, "deploy", "bench", "examples")
        for line, text in _docstrings(path)
        if RIDDLE.match(text)
    ]
    assert not wrong


def test_modules_that_the_command_line_names_by_a_text_exist() -> None:
    """Such as those that `polychrome up` imports before it copies itself: no linter follows these names."""
    dotted = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
    named = [
        (f"{name(path)}:{node.lineno}", node.value)
        for path in modules("polychrome")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and dotted.fullmatch(node.value)
    ]
    assert named
    assert not [f"{where}: {module}" for where, module in named if not _exists(module)]
