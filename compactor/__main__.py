from compactor.config import CompactorConfig
from compactor.service import open_service
from shared.process.service import main

main("compactor", CompactorConfig, open_service)
