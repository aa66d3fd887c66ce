"""What several test modules share, and where the repository's files are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = ROOT / "tests" / "support" / "captures"
DOCUMENTS = ROOT / "tests" / "support" / "documents"
TLS = ROOT / "tests" / "support" / "tls"
