from __future__ import annotations

import pytest

from shared.manifest.store import ManifestStore
from shared.objects.memory import MemoryStore


@pytest.fixture
def objects() -> MemoryStore:
    return MemoryStore(lambda: 0.0)


@pytest.fixture
def store(objects: MemoryStore) -> ManifestStore:
    return ManifestStore(objects)
