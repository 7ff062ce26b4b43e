"""python -m queryworker"""

from queryworker.config import QueryWorkerConfig
from queryworker.service import open_service
from shared.process.service import main

main("queryworker", QueryWorkerConfig, open_service)
