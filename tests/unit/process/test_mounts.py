"""Which folders are on a mount whose server may go away."""

from __future__ import annotations

from pathlib import Path

import pytest

from esl_apps.process.mounts import remote_type

MOUNTS = r"""
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /var/lib/esl_apps rw shared:1 - nfs4 nas:/state rw,hard
31 22 0:41 / /mnt/two\040words rw - fuse.sshfs sshfs rw
32 22 0:42 / /mnt/disk rw - fuseblk /dev/sdb1 rw
33 30 8:2 / /var/lib/esl_apps/local rw - xfs /dev/sdc1 rw
34 22 0:43 / /twice rw - nfs nas:/x rw
35 22 8:3 / /twice rw - ext4 /dev/sdd1 rw
a line that is cut
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib/other", ""),
        ("/var/lib/esl_apps", "nfs4"),
        ("/var/lib/esl_apps/outbox/app1", "nfs4"),
        ("/var/lib/esl_apps_other", ""),
        ("/var/lib/esl_apps/local/outbox", ""),
        ("/mnt/two words/state", "fuse.sshfs"),
        ("/mnt/disk/state", ""),
        ("/twice/state", ""),
    ],
)
def test_folder_has_the_type_of_its_mount(folder: str, kind: str) -> None:
    assert remote_type(folder, MOUNTS) == kind


def test_folder_of_this_machine_is_local(tmp_path: Path) -> None:
    assert remote_type(tmp_path) == ""
