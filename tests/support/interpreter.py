"""A fresh Python, for tests of what an import brings along."""

from __future__ import annotations

import os
import subprocess
import sys


def run_fresh(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints. `make coverage` would import gevent there, too."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environ)
    return done.stdout.strip()
