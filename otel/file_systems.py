"""Which file system holds a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# File systems on which SQLite's WAL and file locks don't hold (names as in /proc/mounts).
_NETWORK_TYPES: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "glusterfs", "lustre"}
    | {"fuse.s3fs", "fuse.gcsfuse", "fuse.blobfuse2", "fuse.rclone", "beegfs", "gpfs", "ocfs2", "davfs", "fuse.davfs2"}
)


def network_file_system(folder: Path) -> str | None:
    """Return the type of the network file system that holds `folder`, None for a local or an unknown one."""
    try:
        mounts = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    where = str(nearest_existing(folder).resolve())
    best, kind = "", ""
    for line in mounts:
        fields = line.split(" ")
        point = fields[1].replace("\\040", " ") if len(fields) > 2 else ""
        inside = point and (where == point or where.startswith(point.rstrip("/") + "/"))
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind if kind in _NETWORK_TYPES else None


def nearest_existing(folder: Path) -> Path:
    """Return `folder` or the closest folder above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
