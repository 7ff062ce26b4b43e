"""Results do not depend on the processor (architecture, promise 8): the same bits, whichever kernels multiply."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.embedder import test_model
from tests.outside.paths import CHECKOUT
from tests.processors.fingerprint import fingerprint
from tests.processors.kernels import KERNELS, TIMEOUT_S, Kernel, can_run, computed_with, needs
from tests.queryworker.query import test_batch_independence
from tests.shared.segment import test_projection
from tests.shared.vectors import test_codes, test_distances, test_elementary, test_nearest

RECORDED = {
    "distances l2": "d8ef556eb4b38079",
    "distances cosine": "26d59d997d35b3ee",
    "distances ip": "c71e79efbd7a6034",
    "scans l2": "7bc8b98ddad382d7",
    "scans cosine": "9aeddaa0f79ca41f",
    "scans ip": "3376dc3b3a3ad9b4",
    "sparse": "7c2a290cd9c92d0f",
    "ranks": "d1f25788d3402102",
}
"""Of an AMD EPYC with AVX-512. They change with the definition of a result or the inputs, and with nothing else."""

LONG = (
    test_projection.test_queries_of_another_kind_find_as_much_as_without_a_basis,
    test_projection.test_a_basis_that_fails_when_the_rows_have_doubled_is_replaced,
    test_projection.test_batches_that_lie_elsewhere_again_and_again_do_not_build_the_graph_anew_each_time,
)
"""With graphs of many rows they take as long as all others; they are about the same decisions. `make soak` has them."""


def _path(module: ModuleType) -> str:
    return Path(str(module.__file__)).relative_to(CHECKOUT).as_posix()


NUMERIC = [
    *map(_path, (test_codes, test_distances, test_elementary, test_nearest, test_projection, test_batch_independence)),
    f"{_path(test_model)}::{test_model.test_a_text_has_the_same_vector_in_whatever_company.__name__}",
    *(f"--deselect={_path(test_projection)}::{test.__name__}" for test in LONG if not os.environ.get("TEST_LONG")),
]


def test_results_are_those_of_the_processor_that_they_were_recorded_on() -> None:
    assert fingerprint() == RECORDED


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_results_are_the_same_as_on_a_processor_with(kernel: Kernel) -> None:
    needs(kernel)
    assert computed_with(kernel)["results"] == RECORDED


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_what_is_said_about_numbers_holds_on_a_processor_with(kernel: Kernel) -> None:
    """The tests of what is compared, ranked or must agree, with all kernels that differ; some ten seconds each."""
    needs(kernel)
    shown = computed_with(kernel)["kernel"]
    for other in KERNELS[: KERNELS.index(kernel)]:
        if can_run(other) and computed_with(other)["kernel"] == shown:
            pytest.skip(f"numpy's OpenBLAS has the same kernels for {kernel.name} as for {other.name}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *NUMERIC]
    ended = subprocess.run(
        command, cwd=CHECKOUT, env=kernel.environment, timeout=TIMEOUT_S, text=True, capture_output=True
    )
    assert ended.returncode == 0, f"{ended.stdout[-5000:]}\n{ended.stderr[-2000:]}"


def test_kernels_that_differ_are_tried() -> None:
    tried = [kernel for kernel in KERNELS if can_run(kernel)]
    if not tried:
        pytest.skip("this processor runs none of the kernels that are known here")
    assert len({computed_with(kernel)["kernel"] for kernel in tried}) > 1
