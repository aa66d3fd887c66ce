"""Tell a folder on this machine's disk from one on a mount whose server may go away."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: File systems whose data is on another machine.
_REMOTE = {
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "gfs2",
    "glusterfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "smb3",
}
#: FUSE is a process, which may hang, except for these: a disk of NTFS, and the layers of rootless containers.
_LOCAL_FUSE = {"fuseblk", "fuse.fuse-overlayfs", "fuse.lxcfs"}
_ESCAPED = re.compile(r"\\([0-7]{3})")


def remote_type(folder: str | os.PathLike[str], mountinfo: str | None = None) -> str:
    """Return the type of a folder's file system if it may hang, as ``nfs4``; empty if it is local or unknown.

    ``mountinfo``: the text of ``/proc/self/mountinfo``, for tests.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
        except OSError:
            return ""
    path = os.path.realpath(folder)
    kind, longest = "", -1
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        parts = fields.split(" ")
        if len(parts) < 5 or not rest:
            continue
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), parts[4])
        # Of two mounts on one point, the later hides the earlier.
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= longest:
            kind, longest = rest.split(" ")[0], len(point)
    fuse = kind.startswith("fuse") and kind not in _LOCAL_FUSE
    return kind if fuse or kind in _REMOTE else ""
