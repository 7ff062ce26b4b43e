"""Where the checkout lies, for tests that read its files or start its processes."""

from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
