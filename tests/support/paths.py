"""Where things are: the repository, and the real data where it is at hand."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = ROOT / "tests"
SHARED = Path(os.environ.get("EDGESEG_SHARED", ROOT.parent / "shared"))
