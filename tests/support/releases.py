"""Other releases of the package, whose nodes run next to those of this tree: an earlier commit, a later version."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.support import ROOT

#: The last commit in which documents had no version.
BEFORE_VERSIONS = "edabd1c0d5802f35ae6cd2b650b83ca2e9f160de"


class NoHistory(Exception):
    """The commit isn't here: not a git checkout, as in an sdist, or a shallow one."""


def earlier(commit: str, folder: Path) -> Path:
    """Unpack a commit's package into ``folder`` and return the directory in which ``python -m esl_apps`` runs it.

    :raises NoHistory: git or the commit is missing.
    """
    command = ["git", "-C", str(ROOT), "archive", commit, "esl_apps", "conf"]
    try:
        archive = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoHistory(f"{commit} can't be unpacked: {getattr(error, 'stderr', b'') or error!r}") from None
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as unpacked:
        unpacked.extractall(folder, filter="tar")
    return _checked(folder)


def later(version: int, folder: Path) -> Path:
    """Copy this tree's package, with that version of every kind of document. As :func:`earlier`."""
    for name in ("esl_apps", "conf"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    module = folder / "esl_apps/core/versions.py"
    text, count = re.subn(r"(?m)^    version: int = 1$", f"    version: int = {version}", module.read_text())
    assert count == 1
    module.write_text(text)
    return _checked(folder)


def _checked(folder: Path) -> Path:
    """Make sure that the package is run from there, and not from where it is installed."""
    command = [sys.executable, "-m", "esl_apps", "--version"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    where = [sys.executable, "-c", "import esl_apps; print(esl_apps.__file__)"]
    found = Path(subprocess.run(where, cwd=folder, check=True, capture_output=True, text=True).stdout.strip())
    assert found == folder.resolve() / "esl_apps/__init__.py", found
    return folder
