"""Finds the file system of a folder, and whether it is suitable for a memory."""

from __future__ import annotations

import re
from pathlib import Path

from agent.errors import ConfigError

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
# As the kernel names them in the list of mounts.
NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p"),
        *("ceph", "glusterfs", "lustre", "beegfs", "gpfs", "orangefs", "pvfs2", "davfs"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.davfs"),
        *("fuse.rclone", "fuse.s3fs", "fuse.mount-s3", "fuse.gcsfuse", "fuse.goofys"),
        *("fuse.juicefs", "fuse.blobfuse", "fuse.blobfuse2", "fuse.curlftpfs", "fuse.smbnetfs"),
    }
)
WHY_NOT_NETWORK = (
    "locks and the write-ahead log of the database do not work on it, so accepted facts can be lost"
)
MOUNTS = Path("/proc/self/mountinfo")


def require_local(data: Path, *, allow_network: bool = False) -> None:
    """Refuses a data folder on a network file system.

    Args:
        data: the folder, which may not exist yet.
        allow_network: the operator allows it.

    Raises:
        ConfigError: it is on one.
    """
    kind = file_system_of(existing(data))
    if kind in NETWORK_FILE_SYSTEMS and not allow_network:
        raise ConfigError(
            f"the data folder {data} is on {kind}, a network file system: {WHY_NOT_NETWORK}. Name"
            " a folder on a local disk with --data, or give --allow-network-filesystem if you are"
            " sure that locks and shared memory work there"
        )


def existing(path: Path) -> Path:
    """Returns the path itself, or the nearest existing folder above it."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def file_system_of(path: Path) -> str:
    """Returns the kind of the file system of a path, e.g. ext4; empty if unknown."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    return kind_in(mounts, path.resolve())


def kind_in(mounts: str, path: Path) -> str:
    """Finds the kind of the file system of a path in a list of mounts; empty if unknown.

    Args:
        mounts: in the format of `/proc/self/mountinfo`; the last mount at a place counts.
        path: absolute, without links.
    """
    kind, deepest = "", -1
    for line in mounts.splitlines():
        # "36 35 98:0 /root /mount/point options - kind source options"
        before, _, after = line.partition(" - ")
        if len(before.split()) < 5 or not after:
            continue
        # Spaces and some other characters are written as \\040.
        mount = Path(re.sub(r"\\([0-7]{3})", _character, before.split()[4]))
        if path.is_relative_to(mount) and len(mount.parts) >= deepest:
            kind, deepest = after.split()[0], len(mount.parts)
    return kind


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 8))
