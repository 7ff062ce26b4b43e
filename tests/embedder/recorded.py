"""What the reference implementation (sentence-transformers 6.2 on torch 2.13) made of some texts, as half floats."""

import base64
import json
from pathlib import Path

import numpy as np

from shared.vectors.arrays import Vectors

LINES = [json.loads(line) for line in Path(__file__).with_name("reference.jsonl").read_text().splitlines()]
TEXTS: list[str] = [line["text"] for line in LINES]
VECTORS = np.array([np.frombuffer(base64.b64decode(line["vector"]), "<f2") for line in LINES]).astype(np.float32)


def cosine_distances(vectors: Vectors, others: Vectors) -> list[float]:
    """Row by row."""
    a, b = vectors.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    distances: list[float] = (1 - (a * b).sum(axis=1) / lengths).tolist()
    return distances
