"""A control group (version 2) of the tests' own, so that they decide what a container uses; and how a process is put in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_BYTES = 512 * 1024 * 1024
#: `python -c CONTAINED ROOT …`: our commands, with the machine read below ROOT.
CONTAINED = """
import sys
from pathlib import Path
from streamlit_extension.monitoring import machine
made = machine.Machine(root=Path(sys.argv.pop(1)))
machine.this_machine = lambda: made  # before anybody imports it by its name
from streamlit_extension.cli import main
main()
"""


class ControlGroup:
    """Files as the kernel writes them, below a folder that stands for `/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "sys/fs/cgroup"
        self._folder.mkdir(parents=True)
        self._busy = threading.Event()
        self._end = threading.Event()
        self._used_us = 0
        self._write("memory.max", LIMIT_BYTES)
        self._write("memory.stat", "inactive_file 0")
        self._write("cpu.max", "100000 100000")
        self.use_memory(20)
        self._write("cpu.stat", "usage_usec 0")
        self._thread = threading.Thread(target=self._run, name="control-group")
        self._thread.start()

    def _write(self, name: str, text: object) -> None:
        draft = self._folder / f".{name}"
        draft.write_text(f"{text}\n")
        draft.replace(self._folder / name)  # a reader sees the old one or the new one, as with the kernel

    def use_memory(self, percent: float) -> None:
        """Use so much of the limit from now on."""
        self._write("memory.current", int(LIMIT_BYTES * percent / 100))

    def use_cpu(self, busy: bool) -> None:
        """Use all of the CPU from now on, or none."""
        self._busy.set() if busy else self._busy.clear()

    def _run(self) -> None:
        last_s = time.monotonic()
        while not self._end.wait(0.02):
            now_s = time.monotonic()
            if self._busy.is_set():
                # More than there is, which counts as all of it: a thread that gets its turn late changes nothing.
                self._used_us += int(4e6 * (now_s - last_s))
                self._write("cpu.stat", f"usage_usec {self._used_us}")
            last_s = now_s

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        self._thread.join()


@pytest.fixture
def control_group(tmp_path: Path) -> Iterator[ControlGroup]:
    """A control group with a fifth of its memory in use and none of its CPU."""
    made = ControlGroup(tmp_path / "control-group")
    yield made
    made.close()
