"""docs/tenancy.md: its commands run as they stand there, and its table has every quota."""

from __future__ import annotations

import re
import shlex

from shared.tenancy.quotas import DESCRIPTIONS
from tests.rooms import CHECKOUT
from tests.tenancy.test_commands import Run, run

__all__ = ["run"]

PAGE = (CHECKOUT / "docs" / "tenancy.md").read_text()


def commands() -> list[list[str]]:
    """The words of the commands on the page, without the program's name; the cluster runs already."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("polychrome ")]
    assert lines, "the page has no commands any more"
    words = [shlex.split(line, comments=True)[1:] for line in lines]
    return [each for each in words if each[0] != "up"]


def test_the_commands_of_the_page_do_what_it_says(run: Run) -> None:
    said = {}
    for words in commands():
        code, out, err = run(*words)
        assert code == 0, f"{words}: {err}"
        said[" ".join(words)] = out
    assert "concurrency: 2" in said["tenants quotas acme --database staging"]
    assert "records: 2000000" in said["tenants quotas acme --database staging"]
    assert said["tenants set-plan acme --default"] == "acme has the default plan.\n"


def test_the_page_has_every_quota() -> None:
    table = PAGE.split("<!-- quotas: begin -->")[1].split("<!-- quotas: end -->")[0].strip()
    rows = [f"| `{quota}` | {text} |" for quota, text in DESCRIPTIONS.items()]
    assert table.splitlines() == ["| quota | of what |", "| --- | --- |", *rows]
