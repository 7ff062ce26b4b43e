"""The examples that the pages show, run as shown."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polychrome.local.process import free_port
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


@pytest.mark.parametrize("example", ["hybrid_search.py", "debian_packages.py"])
def test_help_needs_no_package_and_a_missing_file_is_one_line(example: str, tmp_path: Path) -> None:
    script = CHECKOUT / "examples" / example
    helped = said(sys.executable, "-S", script, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert (
        said(sys.executable, "-S", script, tmp_path / "none.parquet").stderr
        == "the package chromadb is not installed\n"
    )
    lacking = said(sys.executable, script, tmp_path / "none.parquet")
    assert (lacking.returncode, lacking.stderr) == (1, f"there is no file {tmp_path / 'none.parquet'}\n")


@pytest.mark.parametrize("example", ["texts.py", "hybrid_search.py", "debian_packages.py"])
def test_a_server_that_is_not_there_is_one_line(example: str, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for name in ("packages.parquet", "debian-queries.parquet"):
        columns = {"id": ["a"], "short": ["x"], "document": ["x"], "embedding": [[1.0, 2.0]]}
        pq.write_table(pa.table(columns), tmp_path / name)
    arguments = [url] if example == "texts.py" else [tmp_path / "packages.parquet", "--url", url]
    refused = said(sys.executable, CHECKOUT / "examples" / example, *arguments)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"{url}: ")
    assert refused.stderr.count("\n") == 1


def test_what_the_server_says_is_shown(cluster: Cluster) -> None:
    refused = said(sys.executable, CHECKOUT / "examples" / "texts.py", f"{cluster.url}/nowhere")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{cluster.url}/nowhere: 404 ")


def said(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_readme_shows_the_quick_start_as_it_is() -> None:
    script = (CHECKOUT / "examples" / "quickstart.py").read_text()
    assert script.endswith(shown("quickstart script"))


def shown(what: str) -> str:
    """A block of the README under its mark."""
    readme = (CHECKOUT / "README.md").read_text()
    block = re.search(rf"<!-- {what} -->\s*```\w+\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    return block.group(1)
