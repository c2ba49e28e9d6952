"""Taking over what dead processes left, and mending what is damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from otel.export.notices import Notices
from otel.ledger import Ledger
from otel.records import DropReason, Signal
from otel.spool import database, salvage
from otel.spool.claim import LOCK_SUFFIX, SPOOL_SUFFIX, Claim, is_owned
from otel.spool.file import FileSegment, describe
from otel.spool.gate import GATE
from otel.spool.shelf import Shelf


def spool_files(folder: Path) -> list[Path]:
    """The spool files in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"*{SPOOL_SUFFIX}") if path.is_file())


class TakeOver:
    """Looks for spool files whose lock is free, and for own ones that turned out damaged."""

    def __init__(self, folder: Path, shelf: Shelf, ledger: Ledger, notices: Notices) -> None:
        self._folder = folder
        self._shelf = shelf
        self._ledger = ledger
        self._notices = notices

    def look(self) -> int:
        """Take over every orphan and return how many were; one that can't be taken now is left for the next time."""
        taken = 0
        for path in self._orphans():
            try:
                taken += self._take(path)
            except (OSError, sqlite3.Error) as error:
                self._notices.say(
                    "spool.takeover", f"a spool file can't be taken over now: {describe(error)}", file=path.name
                )
        self._forget_locks()
        return taken

    def _orphans(self) -> Iterator[Path]:
        with GATE():
            ours = {segment.path.name for segment in (*self._shelf.files(), *self._shelf.broken)}
        return (path for path in spool_files(self._folder) if path.name not in ours and not is_owned(path))

    def _take(self, path: Path) -> bool:
        with GATE():
            claim = Claim.take(path)
            if claim is None:
                return False
            try:
                if not path.exists():  # its last owner has just removed it
                    claim.discard()
                    return False
                segment = FileSegment.take_over(path, claim)
            except database.NeverUsed:
                database.remove_files(path)
                claim.discard()
                return False
            except database.Damaged as damage:
                reason = str(damage)
            except BaseException:
                claim.release()
                raise
            else:
                self._adopt(segment, segment.lost)
                return True
        self._mend_orphan(path, claim, reason)
        return True

    def _adopt(self, segment: FileSegment, lost: Mapping[Signal, int]) -> None:
        """Count a file's records once, as emitted; inside the gate."""
        for signal, waiting in segment.waiting.items():
            self._ledger.adopted(signal, waiting.records + lost.get(signal, 0))
        self._count_loss(lost, segment.path)
        self._shelf.adopt(segment)

    def _count_loss(self, lost: Mapping[Signal, int], path: Path) -> None:
        for signal, count in lost.items():
            self._ledger.dropped(signal, count, DropReason.DAMAGED, source="spooled")
        if lost:
            told = ", ".join(f"{count} {signal}" for signal, count in lost.items())
            self._notices.say("spool.lost", f"records of a damaged spool file are lost: {told}", file=path.name)

    def _mend_orphan(self, path: Path, claim: Claim, reason: str) -> None:
        try:
            tally = claim.read()
            saved = salvage.salvage(path, claim)
        except BaseException:
            claim.release()
            raise
        expected = {} if tally is None else tally.records
        with GATE():
            salvage.set_aside(path, claim)
            self._notices.say("spool.damaged", f"a spool file is damaged and was set aside: {reason}", file=path.name)
            self._adopt(saved, salvage.lost(expected, saved))

    def mend(self) -> None:
        """Save what can be saved of files that turned out damaged while they were in use."""
        with GATE():
            broken = [segment for segment in self._shelf.broken if not self._shelf.is_sending(segment)]
        for segment in broken:
            try:
                self._mend(segment)
            except (OSError, sqlite3.Error) as error:
                self._notices.say("spool.mend", f"a damaged spool file can't be mended now: {describe(error)}")

    def _mend(self, segment: FileSegment) -> None:
        expected = {signal: waiting.records for signal, waiting in segment.waiting.items()}
        saved = salvage.salvage(segment.path, segment.claim)
        with GATE():
            # What was expected is in the ledger already.
            self._count_loss(salvage.lost(expected, saved), segment.path)
            self._shelf.broken.remove(segment)
            salvage.set_aside(segment.path, segment.release())
            self._shelf.adopt(saved)

    def _forget_locks(self) -> None:
        """Remove lock files whose spool is gone: their owner ended between the two."""
        for path in self._folder.glob(f"*{LOCK_SUFFIX}"):
            spool = path.with_suffix(SPOOL_SUFFIX)
            if spool.exists() or is_owned(spool):
                continue
            try:
                claim = Claim.take(spool)
            except OSError:
                continue
            if claim is not None and not spool.exists():
                claim.discard()
            elif claim is not None:
                claim.release()
