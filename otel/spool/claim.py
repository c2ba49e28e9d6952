"""Whose a spool file is, and what is said to be in it: a lock file beside each, with a tally inside.

A process owns a spool file while it holds the lock on its lock file; the kernel lets go of it when the process ends,
however it ends, and no process number is looked at (every container has a process 1). The tally repeats what the
spool holds, outside SQLite: when the spool can't be read any more, its loss can still be counted, and records that were
sent are not sent again when a deletion was lost.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from otel.records import Signal

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_SUFFIX: Final = ".lock"
SPOOL_SUFFIX: Final = ".db"

_SIGNALS: Final = tuple(Signal)
_TALLY: Final = struct.Struct(f"<4sQ{2 * len(_SIGNALS)}Q")
_CHECK: Final = struct.Struct("<I")
_MAGIC: Final = b"STX1"


class Tally(msgspec.Struct, frozen=True):
    """What a spool file holds.

    `last_id` is the highest id that was ever written, `first_id` of each signal the lowest that is not yet done with,
    `records` how many records wait.
    """

    last_id: int = 0
    first_id: Mapping[Signal, int] = msgspec.field(default_factory=dict)
    records: Mapping[Signal, int] = msgspec.field(default_factory=dict)

    def pack(self) -> bytes:
        """Return it as bytes with a checksum."""
        figures = [self.first_id.get(each, 0) for each in _SIGNALS] + [self.records.get(each, 0) for each in _SIGNALS]
        packed = _TALLY.pack(_MAGIC, self.last_id, *figures)
        return packed + _CHECK.pack(zlib.crc32(packed))

    @classmethod
    def unpack(cls, data: bytes) -> Tally | None:
        """Return what `pack` wrote, None for anything else."""
        if len(data) != _TALLY.size + _CHECK.size:
            return None
        packed = data[: _TALLY.size]
        magic, last_id, *figures = _TALLY.unpack(packed)
        if magic != _MAGIC or data[_TALLY.size :] != _CHECK.pack(zlib.crc32(packed)):
            return None
        count = len(_SIGNALS)
        return cls(
            last_id,
            dict(zip(_SIGNALS, figures[:count], strict=True)),
            dict(zip(_SIGNALS, figures[count:], strict=True)),
        )


class Claim:
    """A held lock on a lock file. Made by `Claim.take`; ends by `release`, `discard`, or with the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, spool: Path) -> Claim | None:
        """Claim the spool file `spool`; None when a living process has it (or has just finished with it).

        Raises:
            OSError: the lock file can't be opened.
        """
        path = spool.with_suffix(LOCK_SUFFIX)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if _lock(descriptor) and _is_at(descriptor, path):
                return cls(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def read(self) -> Tally | None:
        """Return the tally; None when there is none or it is damaged."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return Tally.unpack(os.read(self._descriptor, _TALLY.size + _CHECK.size))

    def write(self, tally: Tally) -> None:
        """Write the tally in place: after the first time it needs no further room on the disk."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, tally.pack())

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._descriptor)

    def discard(self) -> None:
        """Remove the lock file, then let go: nobody finds a file whose lock is free but which is gone."""
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def is_owned(spool: Path) -> bool:
    """Whether a living process owns the spool file; asks without keeping anybody from taking it for long."""
    try:
        descriptor = os.open(spool.with_suffix(LOCK_SUFFIX), os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return False
    try:
        return not _lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def read_tally(spool: Path) -> Tally | None:
    """The tally of a spool file, whoever owns it."""
    try:
        return Tally.unpack(spool.with_suffix(LOCK_SUFFIX).read_bytes())
    except OSError:
        return None


def _lock(descriptor: int, *, shared: bool = False) -> bool:
    """Whether the lock was free, and is now held until the descriptor is closed."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _TALLY.size * 16, os.SEEK_SET)  # behind the tally: such a lock also forbids to read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file that was locked is still the one at `path`: its last owner may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
