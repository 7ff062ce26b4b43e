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
    shown = re.search(r"<!-- quickstart output -->\s*```text\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert ran.stdout == shown.group(1)
