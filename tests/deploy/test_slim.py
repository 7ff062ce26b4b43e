"""What is left out of the image: on folders made up, and that the rules still match what is installed here."""

from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

import deploy.slim
from deploy.slim import PACKAGES, RULES, Rule, check_license, matches, size, slim
from tests.outside.paths import CHECKOUT


def made(site: Path, *names: str) -> None:
    for name in names:
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234")


def test_a_rule_takes_its_matches_and_keeps_what_it_names(tmp_path: Path) -> None:
    made(tmp_path, "botocore/data/s3/one.json", "botocore/data/ec2/one.json", "botocore/data/endpoints.json")
    rule = next(rule for rule in RULES if "botocore/data/*/" in rule.patterns)
    assert matches(rule, tmp_path) == [tmp_path / "botocore/data/ec2"]


def test_what_lies_inside_a_match_is_not_named_again(tmp_path: Path) -> None:
    made(tmp_path, "numpy/tests/data/tests/one.h", "numpy/one.py")
    rule = Rule(("**/tests", "**/*.h"), "tests")
    assert matches(rule, tmp_path) == [tmp_path / "numpy/tests"]
    assert size(tmp_path / "numpy/tests") == 4


def test_a_rule_that_matches_nothing_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "numpy/one.py")
    monkeypatch.setattr(deploy.slim, "RULES", (Rule(("numpy/f2py",), "build tools for Fortran"),))
    with pytest.raises(SystemExit, match="nothing matches numpy/f2py"):
        slim(tmp_path)
    assert (tmp_path / "numpy/one.py").exists()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.reason)
def test_rules_match_the_versions_that_are_pinned(rule: Rule) -> None:
    sites = {Path(str(found.locate_file(""))) for found in distributions() if found.name == "numpy"}
    assert any(matches(rule, site) for site in sites)


def test_every_package_of_ours_is_imported_by_the_check() -> None:
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    named = {line[1:] for line in lines if line.startswith("!")}
    assert set(PACKAGES) == {name for name in named if (CHECKOUT / name).is_dir()}


def test_an_image_without_the_licence_is_not_built(tmp_path: Path) -> None:
    made(tmp_path, "polychrome-1.dist-info/METADATA")
    (tmp_path / "polychrome-1.dist-info/METADATA").write_text("Metadata-Version: 2.4\nName: polychrome\n")
    ours = Distribution.at(tmp_path / "polychrome-1.dist-info")
    with pytest.raises(SystemExit, match="polychrome was built without its LICENSE"):
        check_license(ours)
    made(tmp_path, "polychrome-1.dist-info/licenses/LICENSE")
    check_license(ours)
