from logservice.config import LogserviceConfig
from logservice.service import open_service
from shared.process.service import main

main("logservice", LogserviceConfig, open_service)
