"""Processors that this one can stand in for: the kernels of OpenBLAS, and what numpy and numkong have to do without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from tests.missing import missing
from tests.outside.paths import CHECKOUT

_WIDE: Final = ("X86_V4", "AVX512_ICL", "AVX512_SPR")
_WIDE_FAMILIES: Final = ("skylake", "icelake", "genoa", "sapphire", "turin", "diamond")
TIMEOUT_S: Final = 240


@dataclass(frozen=True)
class Kernel:
    """`name`: what OPENBLAS_CORETYPE calls it. `needs`: flags of a processor that can run it. `shown`: what OpenBLAS
    may call it then; another name where it uses the kernels of another. `features` of numpy and `families` of numkong
    came after this processor.
    """

    name: str
    needs: frozenset[str]
    shown: tuple[str, ...]
    features: tuple[str, ...] = ()
    families: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "OPENBLAS_CORETYPE": self.name,
            "NPY_DISABLE_CPU_FEATURES": " ".join(self.features),
            "PYTHONPATH": str(CHECKOUT),
        }


_BEFORE_AVX2: Final = {"features": ("X86_V3", *_WIDE), "families": ("haswell", "alder", "sierra", *_WIDE_FAMILIES)}
_BEFORE_AVX512: Final = {"features": _WIDE, "families": _WIDE_FAMILIES}

KERNELS: Final = (
    Kernel("Prescott", frozenset({"pni"}), ("Prescott", "Katmai"), **_BEFORE_AVX2),
    Kernel("Sandybridge", frozenset({"avx"}), ("Sandybridge",), **_BEFORE_AVX2),
    Kernel("Haswell", frozenset({"avx2", "fma"}), ("Haswell",), **_BEFORE_AVX512),
    Kernel("Zen", frozenset({"avx2", "fma"}), ("Zen", "Haswell"), **_BEFORE_AVX512),
    Kernel("SkylakeX", frozenset({"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"}), ("SkylakeX",)),
)


@cache
def _flags() -> frozenset[str]:
    """What this processor can do."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def can_run(kernel: Kernel) -> bool:
    return kernel.needs <= _flags()


@cache
def computed_with(kernel: Kernel) -> dict[str, Any]:
    """What `tests.processors.fingerprint` prints with a kernel that this processor can run."""
    command = [sys.executable, "-m", "tests.processors.fingerprint", *kernel.families]
    ended = subprocess.run(
        command, cwd=CHECKOUT, env=kernel.environment, check=True, timeout=TIMEOUT_S, stdout=subprocess.PIPE
    )
    printed: dict[str, Any] = json.loads(ended.stdout)
    return printed


def needs(kernel: Kernel) -> None:
    """Let the running test go on if OpenBLAS computes with this kernel when it is told to."""
    if not can_run(kernel):
        pytest.skip(f"this processor cannot run the kernels for {kernel.name}")
    shown = computed_with(kernel)["kernel"]
    if not shown:
        missing("OpenBLAS in numpy")
    if shown not in kernel.shown:
        pytest.skip(f"numpy's OpenBLAS has no kernels for {kernel.name}, and uses those for {shown}")
