"""One folder for all temporary files of a run, removed when the run ends, so that nothing is left behind."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "esl_apps-tests-"
_kept = False


def use_own_folder() -> Path:
    """Make a folder, and let this process and those that it starts put their temporary files there."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    owner = os.getpid()
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)

    def remove() -> None:
        # A fork that ends must not take the folder from its parent.
        if os.getpid() == owner and not _kept:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def make_folder(prefix: str) -> Path:
    """Make a folder in the run's own, which a benchmark has from its first such folder on."""
    if not Path(tempfile.gettempdir()).name.startswith(_PREFIX):
        use_own_folder()
    return Path(tempfile.mkdtemp(prefix=prefix))


def keep() -> None:
    """Leave the run's folder: its logs may say why the run failed."""
    global _kept
    _kept = True
