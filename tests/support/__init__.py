"""Helpers of several test modules, and the paths of the repository's files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = ROOT / "tests" / "support" / "captures"
DOCUMENTS = ROOT / "tests" / "support" / "documents"
TLS = ROOT / "tests" / "support" / "tls"
