"""python -m frontend"""

from frontend.config import FrontendConfig
from frontend.service import open_service
from shared.process.service import main

main("frontend", FrontendConfig, open_service)
