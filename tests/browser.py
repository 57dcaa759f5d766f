"""The browser that the tests drive, and where its pictures are kept."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SHOTS = Path(os.environ.get("ADAPTSEG_SCREENSHOTS") or Path(__file__).parent / "screenshots")
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium: apt-get install chromium")
