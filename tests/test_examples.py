"""The examples that the pages show, run as shown."""

import re
import subprocess
import sys
from urllib.parse import urlsplit

from tests.cluster.harness import Cluster
from tests.outside.paths import CHECKOUT


def test_the_quick_start_prints_what_the_readme_shows(cluster: Cluster) -> None:
    address = urlsplit(cluster.url)
    ran = subprocess.run(
        [sys.executable, CHECKOUT / "examples" / "quickstart.py", str(address.hostname), str(address.port)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == shown("quickstart output")


def test_the_readme_shows_the_quick_start_as_it_is() -> None:
    script = (CHECKOUT / "examples" / "quickstart.py").read_text()
    assert script.endswith(shown("quickstart script"))


def shown(what: str) -> str:
    """A block of the README under its mark."""
    readme = (CHECKOUT / "README.md").read_text()
    block = re.search(rf"<!-- {what} -->\s*```\w+\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    return block.group(1)
