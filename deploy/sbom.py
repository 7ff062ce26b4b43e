"""`make sbom`: the packages that run in production as a CycloneDX document (JSON), from what is installed.

The packages are those that Polychrome needs with its run-time extras, and what these need in turn, read from the
metadata that pip installed. A version that differs from constraints.txt, or a package that is missing there, ends it:
the document is one of the build that is tested. The same packages give the same bytes: it has no time and no serial
number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

ROOT: Final = "polychrome"
EXTRAS: Final = ("local", "minilm")
"""The optional dependencies that `make run` installs."""
CONSTRAINTS: Final = Path(__file__).resolve().parent.parent / "constraints.txt"


def main() -> None:
    """Prints the document. Exits with 1, and says what is wrong, where an installed version is not the pinned one."""
    packages = needed(ROOT, EXTRAS)
    wrong = differing(packages, pinned(CONSTRAINTS.read_text()))
    if wrong:
        sys.exit("not what constraints.txt pins: " + ", ".join(wrong))
    print(json.dumps(document(packages), indent=1, sort_keys=True))


def needed(root: str, extras: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """The packages that `root` with these extras needs here, itself included: for each canonical name the names that
    it needs. Raises PackageNotFoundError for one that is not installed.
    """
    found: dict[str, frozenset[str]] = {}
    waiting = [(str(canonicalize_name(root)), frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        needs = dict(_requirements(name, wanted))
        found[name] = found.get(name, frozenset()) | needs.keys()
        waiting += needs.items()
    return found


def _requirements(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """The packages that a package with these extras needs on this machine, each with the extras of it."""
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield str(canonicalize_name(requirement.name)), frozenset(requirement.extras)


def pinned(constraints: str) -> dict[str, str]:
    """The versions in the text of a constraints file, by canonical name."""
    lines = [line.partition("==") for line in constraints.splitlines() if "==" in line and not line.startswith("#")]
    return {str(canonicalize_name(name.strip())): version.strip() for name, _, version in lines}


def differing(packages: Mapping[str, object], versions: Mapping[str, str]) -> list[str]:
    """Those of these packages, with their versions, that are pinned in another version, or not at all."""
    installed = {name: metadata.version(name) for name in sorted(packages) if name != ROOT}
    return [f"{name} {version}" for name, version in installed.items() if versions.get(name) != version]


def document(packages: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    """The CycloneDX document (specification 1.5) of these packages, of which the root is the one described."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": _component(ROOT, "application")},
        "components": [_component(name, "library") for name in sorted(packages) if name != ROOT],
        "dependencies": [
            {"ref": _reference(name), "dependsOn": [_reference(each) for each in sorted(needs)]}
            for name, needs in sorted(packages.items())
        ],
    }


def _component(name: str, kind: str) -> dict[str, Any]:
    about, reference = metadata.metadata(name), _reference(name)
    component = {"type": kind, "bom-ref": reference, "name": name, "version": metadata.version(name), "purl": reference}
    expressions = about.get_all("License-Expression") or ()
    declared = [each for each in about.get_all("Classifier") or () if each.startswith("License :: ")]
    if expressions:
        return {**component, "licenses": [{"expression": expressions[0]}]}
    if declared:
        return {**component, "licenses": [{"license": {"name": each.rpartition(" :: ")[2]}} for each in declared]}
    return component


def _reference(name: str) -> str:
    return f"pkg:pypi/{name}@{metadata.version(name)}"


if __name__ == "__main__":
    main()
