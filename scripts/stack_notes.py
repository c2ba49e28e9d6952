"""Notes of what runs: each program writes its own pid, and when it began, before it becomes the program."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Final

#: For `sh -c NOTE FILE PROGRAM…`: a shell that notes who it is, and then becomes the program, so that nobody is lost
#: when whoever starts it dies in between.
NOTE: Final = """
began=$(cut -d' ' -f22 /proc/$$/stat 2>/dev/null || ps -o lstart= -p $$)
echo "$$ $began" > "$0.new" && mv "$0.new" "$0" && exec "$@"
"""


def pid(note: Path) -> int | None:
    """Return the pid that a note tells of, None when that process has ended or there is no note.

    Raises:
        ValueError: it holds something else.
    """
    try:
        noted, _, began = note.read_text(encoding="utf-8").strip().partition(" ")
    except OSError:
        return None
    found = int(noted)
    return found if began and _began(found) == began else None


def _began(pid: int) -> str:
    """When a process began, as the kernel or ps tells it; nothing when there is none, or only its remains."""
    if Path("/proc/self/stat").exists():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else fields[19]
        return ""
    asked = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
