"""python -m embedder"""

from embedder.config import EmbedderConfig
from embedder.service import open_service
from shared.process.service import main

main("embedder", EmbedderConfig, open_service)
