"""The house style as a test: who may import whom, how long things may be, what the pages must name."""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from shared.process.config import ProcessConfig, settings
from tests import settings_table
from tests.rooms import CHECKOUT, ORDER, PACKAGES, arrows, dotted, imports, known, modules, name, room, tree

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 450

PAGES = (*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs").rglob("*.md")))

# The edges: but for them and the module that opens a process's resources, nobody sees these libraries.
EDGES = {
    "aiohttp": ("frontend/", "shared/process/service.py"),
    "redis": (
        "shared/redis/",
        "shared/catalog",
        "shared/cluster/lease.py",
        "shared/cluster/membership.py",
        "shared/log/",
        "shared/tenancy/",
        "polychrome/",
    ),
    "boto3": ("shared/objects/", "polychrome/bucket.py"),
}


def test_types_are_decoded_by_decoders_that_the_import_makes() -> None:
    """msgspec describes a type to itself at the first use, and not safely in two threads at once: one of them reads a
    description that is not finished, and the process dies of SIGSEGV. A decoder that a module makes is finished.
    """
    wrong = [
        f"{name(path)}:{node.lineno}"
        for path in modules(*PACKAGES)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "decode"
        and any(keyword.arg == "type" for keyword in node.keywords)
    ]
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_shared_and_itself_alone(package: str) -> None:
    allowed = {package, "shared"}
    wrong = [
        f"{name(path)} imports {imported}"
        for path in modules(package)
        for imported in imports(path)
        if imported.partition(".")[0] in set(PACKAGES) - allowed
    ]
    assert not wrong


@pytest.mark.parametrize("package", ORDER)
def test_lower_rooms_never_import_higher_ones(package: str) -> None:
    level = {own: number for number, layer in enumerate(ORDER[package]) for own in layer}
    assert set(level) == set(arrows(package)), "tests/rooms.py names the rooms that there are"
    wrong = [
        f"{name(path)} imports {imported}"
        for path in modules(package)
        for imported in imports(path)
        if (own := room(dotted(path)))
        and imported.partition(".")[0] == package
        and (other := room(imported)) not in {"", own}
        and level[other] >= level[own]
    ]
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    graph = {dotted(path): {each for each in imports(path) if each in known()} for path in modules(package)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("library", EDGES)
def test_libraries_of_the_edge_stay_there(library: str) -> None:
    wrong = [
        name(path)
        for path in modules(*PACKAGES)
        if library in {imported.partition(".")[0] for imported in imports(path)}
        and not name(path).startswith(EDGES[library])
        and path.name != "service.py"
    ]
    assert not wrong


def test_functions_fit_a_screen() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name}: {lines} lines"
        for path in modules(*PACKAGES, "deploy", "tests", "bench", "examples")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long


def test_files_stay_readable() -> None:
    long = [
        f"{name(path)}: {lines} lines"
        for path in modules(*PACKAGES, "deploy", "tests", "bench", "examples")
        if (lines := len(path.read_text().splitlines())) > FILE_LINES_MAX
    ]
    assert not long


def test_no_two_classes_share_a_name() -> None:
    """Within a process, that is: what it has itself and what it may import."""
    clashes: dict[str, set[str]] = {}
    for package in PACKAGES:
        homes = defaultdict(set)
        for path in modules(*{package, "shared"}):
            for node in tree(path).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes[node.name].add(name(path))
        clashes |= {class_name: where for class_name, where in homes.items() if len(where) > 1}
    assert not clashes


def test_array_types_are_defined_in_one_module() -> None:
    """Its names say dtype and shape; elsewhere an array type spelled out would be one more name for the same."""
    wrong = [
        f"{name(path)}:{node.lineno}"
        for path in modules(*PACKAGES, "tests", "bench", "examples")
        if name(path) != "shared/vectors/arrays.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.expr | ast.alias)
        if "NDArray" in (getattr(node, "attr", None), getattr(node, "id", None), getattr(node, "name", None))
        or (isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("ndarray"))
    ]
    assert not wrong


def test_drawings_in_docstrings_stand_in_a_block_of_text() -> None:
    """Columns of bytes or of a table: only in such a block does a formatter leave spaces and lines alone."""
    wrong = [f"{name(path)}: {line}" for path in modules(*PACKAGES) for line in _drawn_outside_of_blocks(path)]
    assert not wrong


def _drawn_outside_of_blocks(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            prose = re.sub(r"^ *```.*?^ *```", "", ast.get_docstring(node) or "", flags=re.MULTILINE | re.DOTALL)
            yield from (line for line in prose.splitlines() if re.search(r"\S {3,}\S", line))


def test_every_setting_is_in_the_operations_page() -> None:
    assert settings_table.written() == settings_table.tables().strip(), "run: python -m tests.settings_table"


def test_a_role_names_its_settings_by_its_prefix() -> None:
    common = {described.env for described in settings(ProcessConfig)}
    for role, config_type in settings_table.config_types().items():
        own = {described.env for described in settings(config_type)} - common
        assert all(env.startswith(f"POLYCHROME_{role.upper()}_") for env in own), role


def test_every_variable_of_compose_is_in_the_operations_page() -> None:
    page = settings_table.PAGE.read_text()
    variables = set(re.findall(r"\$\{([A-Z0-9_]+)", (CHECKOUT / "compose.yaml").read_text()))
    assert not {variable for variable in variables if f"`{variable}`" not in page}


def test_metrics_that_the_operations_page_names_exist() -> None:
    code = "".join(path.read_text() for path in modules(*PACKAGES))
    named = set(re.findall(r"`(polychrome_[a-z_]+)`", settings_table.PAGE.read_text()))
    known = {metric for metric in named if re.sub(r"_(total|bucket|sum|count)$", "", metric) in code}
    assert not named - known


def test_committed_pins_name_no_host() -> None:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)


def test_every_package_is_in_the_wheel_and_in_the_image() -> None:
    assert {f"COPY {package} {package}" for package in PACKAGES} <= _lines("deploy/Dockerfile")
    assert {f"!{package}" for package in PACKAGES} <= _lines(".dockerignore")
    wheel = _pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) == set(PACKAGES)


def test_what_the_wheel_says_of_itself_is_there_when_the_image_is_built() -> None:
    """The build of a wheel takes no notice of a licence that is missing."""
    project = _pyproject()["project"]
    copied = {word for line in _lines("deploy/Dockerfile") if line.startswith("COPY ") for word in line.split()[1:-1]}
    for file in (project["readme"], *project["license-files"]):
        assert (CHECKOUT / file).exists()
        assert f"!{file}" in _lines(".dockerignore")
        assert file in copied


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def _lines(path: str) -> set[str]:
    return set((CHECKOUT / path).read_text().splitlines())


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{name(page)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_links_to_a_heading_find_it() -> None:
    broken = [
        f"{name(page)}: {target}#{heading}"
        for page in PAGES
        for target, heading in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text())
        if heading not in _anchors(page.parent / target if target else page)
    ]
    assert not broken


def _anchors(page: Path) -> set[str]:
    """The headings of a page as they stand in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_section_that_is_cited_is_one_of_the_wire_contract() -> None:
    """No other page has numbered sections, so a number without the page in front of it leads nowhere."""
    wire = CHECKOUT / "docs" / "wire.md"
    existing = re.findall(r"^## (\d+) ", wire.read_text(), re.MULTILINE)
    assert existing == [str(number) for number in range(1, len(existing) + 1)]
    citation = re.compile(r"(docs/wire\.md, )?\bsections? (\d+)(?: (?:and|to) (\d+))?", re.IGNORECASE)
    wrong = [
        f"{name(path)}: {found[0]}"
        for path in [*PAGES, *modules(*PACKAGES, "tests", "bench")]
        for found in citation.finditer(_one_line(path))
        if (path != wire and not found[1]) or not {found[2], found[3] or found[2]} <= set(existing)
    ]
    assert not wrong


def _one_line(path: Path) -> str:
    """A text without line ends, and with the words of links in the links' place."""
    text = re.sub(r"\s*\n[\s#]*", " ", path.read_text())
    return re.sub(r"\[([^\[\]]*)\]\([^()]*\)", r"\1", text) if path in PAGES else text


def test_settings_that_a_page_names_exist() -> None:
    known = {each.env for config_type in settings_table.config_types().values() for each in settings(config_type)}
    known |= set(re.findall(r"\$\{([A-Z0-9_]+)", (CHECKOUT / "compose.yaml").read_text()))
    wrong = [
        f"{name(page)}: {named}"
        for page in PAGES
        for named in re.findall(r"\bPOLYCHROME_[A-Z0-9_]*[A-Z0-9]", page.read_text())
        if named not in known
    ]
    assert not wrong


def test_files_that_are_named_exist() -> None:
    """In pages, in code and in what builds and starts it. A name that goes on with a placeholder is none."""
    folders = (*PACKAGES, "deploy", "tests", "bench", "examples", "docs")
    named = re.compile(rf"(?<![\w./<>{{}}$-])(?>(?:{'|'.join(folders)})/[\w./-]*)(?![\\*<{{$])")
    others = ("Makefile", "compose.yaml", "deploy/*.sh", "deploy/Dockerfile", ".ci/*", "shared/*/*.lua")
    texts = [*PAGES, *modules(*folders[:-1]), *(path for pattern in others for path in sorted(CHECKOUT.glob(pattern)))]
    missing = [
        f"{name(path)}: {found[0]}"
        for path in texts
        for found in named.finditer(path.read_text())
        if (file := CHECKOUT / found[0].rstrip("./-")).suffix and not file.exists()
    ]
    assert not missing


def test_the_console_script_needs_nothing_of_the_tests() -> None:
    third_party = {imported.partition(".")[0] for path in modules(*PACKAGES) for imported in imports(path)}
    assert not third_party & {"pytest", "hypothesis", "httpx", "ministack", "chromadb", "tests", "bench"}


def test_one_module_alone_looks_for_data_beside_the_checkout() -> None:
    beside = re.compile(r"\.\./shared|\.parent / \"shared\"|parents\[\d\] / \"shared\"")
    found = [
        name(path)
        for path in [*modules(*PACKAGES, "deploy", "tests", "bench", "examples"), *CHECKOUT.glob("*.md")]
        if beside.search(path.read_text()) and path != Path(__file__)
    ]
    assert found == ["deploy/real_data.py"]
