"""The bill of materials has what runs in production, in the versions that are tested, and nothing else."""

import json
import tomllib
from importlib import metadata

import pytest
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

from deploy import sbom
from tests.rooms import CHECKOUT


def test_it_has_every_package_that_the_project_needs_to_run_and_none_of_its_tests() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    runtime = [*project["dependencies"], *(line for extra in sbom.EXTRAS for line in extras[extra])]
    packages = sbom.needed(sbom.ROOT, sbom.EXTRAS)
    assert {canonicalize_name(Requirement(line).name) for line in runtime} <= packages.keys()
    assert "pytest" not in packages
    assert {"yarl", "botocore"} <= packages.keys(), "what these need is there, too"


def test_every_reference_leads_to_a_component_with_its_version() -> None:
    found = sbom.document(sbom.needed(sbom.ROOT, sbom.EXTRAS))
    assert json.loads(json.dumps(found)) == found
    components = [found["metadata"]["component"], *found["components"]]
    references = {each["bom-ref"] for each in components}
    assert len(references) == len(components)
    assert {each["ref"] for each in found["dependencies"]} == references
    assert {each for one in found["dependencies"] for each in one["dependsOn"]} <= references
    assert f"pkg:pypi/aiohttp@{metadata.version('aiohttp')}" in references


def test_another_version_than_the_pinned_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = sbom.needed(sbom.ROOT, sbom.EXTRAS)
    pins = sbom.pinned(sbom.CONSTRAINTS.read_text())
    assert sbom.differing(packages, {**pins, "aiohttp": "0"}) == [f"aiohttp {metadata.version('aiohttp')}"]
    monkeypatch.delitem(pins, "yarl")
    assert sbom.differing(packages, pins) == [f"yarl {metadata.version('yarl')}"]


@pytest.mark.parametrize("line", ["# a==1", "", "A_b==1.0"])
def test_lines_of_constraints_are_read_by_canonical_name(line: str) -> None:
    assert sbom.pinned(line) == ({"a-b": "1.0"} if line == "A_b==1.0" else {})
