"""Build the sdist and the wheel of the last commit, the same bytes each time: ``python tools/dist.py [FOLDER]``.

Files come from ``git archive``, so nothing gets in that isn't committed. All times are the commit's, or
``$SOURCE_DATE_EPOCH``. setuptools doesn't keep to that in an sdist, so its tar archive is written again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    epoch = commit_time()
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary, "source")
        source.mkdir()
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(source, filter="tar")
        os.umask(0o022)
        subprocess.run(
            [sys.executable, "-m", "build", "--outdir", temporary, source],
            check=True,
            stdout=sys.stderr,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"},
        )
        (sdist,) = Path(temporary).glob("*.tar.gz")
        (wheel,) = Path(temporary).glob("*.whl")
        for name, data in ((sdist.name, repacked(sdist.read_bytes(), epoch)), (wheel.name, wheel.read_bytes())):
            (folder / name).write_bytes(data)
            print(f"{hashlib.sha256(data).hexdigest()}  {folder / name}")
    return 0


def commit_time() -> int:
    told = os.environ.get("SOURCE_DATE_EPOCH")
    return int(told or subprocess.check_output(["git", "log", "-1", "--format=%ct"], cwd=ROOT, text=True))


def repacked(data: bytes, epoch: int) -> bytes:
    """The same files as an archive in which only they matter: sorted, of one time, of no owner."""
    plain = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return gzip.compress(plain.getvalue(), mtime=epoch)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if sys.argv[1:] else ROOT / "dist")))
