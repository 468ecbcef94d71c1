"""Which file system a folder is on."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.mounts import network_file_system, type_at

MOUNTINFO = rb"""22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /home/us\040er rw,relatime shared:5 - nfs4 server:/export rw
31 30 0:41 / /home/us\040er/local rw - xfs /dev/sdb1 rw
32 22 0:42 / /mnt rw - tmpfs tmpfs rw
33 32 0:43 / /mnt rw master:3 propagate_from:2 - fuse.sshfs me@there: rw
broken line
""".splitlines()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/", "ext4"),
        (b"/home", "ext4"),
        (b"/home/us er", "nfs4"),
        (b"/home/us er/deep/er", "nfs4"),
        (b"/home/us er 2", "ext4"),
        (b"/home/us er/local/x", "xfs"),
        (b"/mnt/x", "fuse.sshfs"),
    ],
)
def test_the_innermost_mount_decides_and_of_equal_ones_the_last(path: bytes, kind: str) -> None:
    assert type_at(path, MOUNTINFO) == kind


def test_a_local_folder_is_on_no_network(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) is None
