"""Where the material lies that comes beside a checkout, not inside it. Tests that need it skip where it is absent."""

from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
SHARED: Final = CHECKOUT.parent / "shared"
DATA: Final = SHARED / "data"
