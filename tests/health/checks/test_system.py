"""Disk, memory and CPU against what may really be used: files of a container's limits, and this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlit_extension import ComponentChecker
from streamlit_extension.health.checks import system
from streamlit_extension.health.model import Outcome

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20
Files = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def container(tmp_path: Path) -> Files:
    """Writes the files that a container shows, below a root of its own."""

    def write(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


V2 = {
    "memory.max": f"{100 * MIB}\n",
    "memory.current": f"{95 * MIB}\n",
    "memory.stat": f"anon 1\ninactive_file {15 * MIB}\n",
}
V1 = {
    "memory/memory.limit_in_bytes": f"{100 * MIB}\n",
    "memory/memory.usage_in_bytes": f"{95 * MIB}\n",
    "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {15 * MIB}\n",
}


@pytest.mark.parametrize("files", [V2, V1], ids=["v2", "v1"])
def test_a_containers_memory_is_its_working_set_against_its_limit(container: Files, files: Mapping[str, str]) -> None:
    """Of 95 MiB in use 15 are file pages that the kernel takes back at need: 80 % of 100 MiB."""
    root = container(files)
    found = system.memory(root)
    assert (found.used_bytes, found.limit_bytes) == (80 * MIB, 100 * MIB)
    assert found.percent == 80.0
    assert system.memory_limit_bytes(root) == 100 * MIB


@pytest.mark.parametrize(
    "files",
    [
        {},
        {**V2, "memory.max": "max\n"},
        {**V2, "memory.max": "\n"},
        {**V2, "memory.max": "nonsense\n"},
        {**V2, "memory.max": "0\n"},
        {**V2, "memory.current": "nonsense\n"},
        {"memory.max": f"{100 * MIB}\n"},
        {**V2, "memory.max": f"{1 << 50}\n"},
        {**V1, "memory/memory.limit_in_bytes": "9223372036854771712\n"},
        {**V1, "memory/memory.limit_in_bytes": "-1\n"},
        {"memory/memory.limit_in_bytes": f"{100 * MIB}\n"},
    ],
)
def test_without_a_limit_that_counts_it_is_the_machines_memory(container: Files, files: Mapping[str, str]) -> None:
    """No limit, one above the machine's memory, or files that nobody understands: the machine decides."""
    found = system.memory(container(files))
    assert found.limit_bytes == psutil.virtual_memory().total
    assert 0 < found.percent <= 100


@pytest.mark.parametrize("stat", [None, "", "anon 5\n", "inactive_file\n", "inactive_file x\n"])
def test_without_the_statistics_all_use_counts(container: Files, stat: str | None) -> None:
    """A limit without knowledge of file pages is still the limit."""
    files = {name: text for name, text in V2.items() if name != "memory.stat"}
    found = system.memory(container(files if stat is None else {**files, "memory.stat": stat}))
    assert (found.used_bytes, found.limit_bytes) == (95 * MIB, 100 * MIB)


def test_more_file_pages_than_use_are_no_negative_use(container: Files) -> None:
    """The kernel's figures are read one after the other and may not match."""
    found = system.memory(container({**V2, "memory.current": f"{MIB}\n"}))
    assert (found.used_bytes, found.percent) == (0, 0.0)


@pytest.mark.parametrize(
    ("threshold", "outcome"),
    [(79.9, Outcome.DEGRADED), (80.0, Outcome.OK), (90.0, Outcome.OK), (0.0, Outcome.DEGRADED)],
)
def test_memory_above_its_threshold_is_degraded(container: Files, threshold: float, outcome: Outcome) -> None:
    """Above is degraded with the reason and both figures; at the threshold it is well."""
    found = system.check_memory_usage(threshold, container(V2))
    assert found.outcome is outcome
    assert found.detail["memory_usage_percent"] == 80.0
    assert 0 <= found.detail["cpu_usage_percent"] <= 100
    if outcome is Outcome.DEGRADED:
        assert found.detail["reason"] == "memory"
        assert found.error == f"memory usage is 80%, above {threshold:g}%"
    else:
        assert found.error is None


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "25000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.25),
    ],
)
def test_a_containers_cpu_quota_is_the_limit(container: Files, files: Mapping[str, str], cpus: float) -> None:
    """Half a CPU is half a CPU, by either version of the files."""
    assert system.cpu_limit(container(files)) == cpus


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu.max": "max 100000\n"},
        {"cpu.max": "nonsense\n"},
        {"cpu.max": ""},
        {"cpu.max": "50000 0\n"},
        {"cpu.max": "0 100000\n"},
        {"cpu.max": "-1 100000\n"},
        {"cpu.max": "99999999 100000\n"},
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        {"cpu/cpu.cfs_quota_us": "1\n", "cpu/cpu.cfs_period_us": "0\n"},
    ],
)
def test_without_a_quota_every_cpu_that_may_be_used_counts(container: Files, files: Mapping[str, str]) -> None:
    """No quota, one above the machine, or files that nobody understands: the CPUs of this process, and no failure."""
    root = container(files)
    cpus = system.cpu_limit(root)
    assert cpus >= 1
    assert cpus == system.cpu_limit(Path("/nowhere"))
    system.CpuMeter(root).percent()


def test_a_containers_cpu_use_is_a_share_of_its_quota(container: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of CPU within a second is all of a quota of half a CPU; what is over it stays 100 %."""
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    root = container({"cpu.max": "50000 100000\n", "cpu.stat": "usage_usec 7000000\nuser_usec 1\n"})
    meter = system.CpuMeter(root)
    assert meter.percent() is None
    for used_us, percent in ((7_250_000, 50.0), (7_750_000, 100.0), (9_750_000, 100.0), (9_750_000, 0.0), (1, 0.0)):
        now_s[0] += 1
        (root / "sys/fs/cgroup/cpu.stat").write_text(f"usage_usec {used_us}\n")
        assert meter.percent() == pytest.approx(percent)
        assert meter.percent() == pytest.approx(percent)  # asked again at once, it repeats itself


def test_the_machines_cpu_use_stays_within_its_bounds() -> None:
    """Many threads that ask at the same time get a share between 0 and 100."""
    meter = system.CpuMeter(Path("/nowhere"))
    meter.percent()
    found: list[float | None] = []

    def ask() -> None:
        found.extend(meter.percent() for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 800
    assert all(each is None or 0 <= each <= 100 for each in found)


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60))
def test_a_share_of_memory_is_within_0_and_100(used: int, limit: int) -> None:
    """Whatever the kernel says."""
    assert 0 <= system.Memory(used, limit).percent <= 100


# -- disk -----------------------------------------------------------------------------------------------------------


def test_disk_above_its_threshold_is_degraded(tmp_path: Path) -> None:
    """The disk that holds the folder decides; its share is of what users may have, as `df` shows it."""
    usage = shutil.disk_usage(tmp_path)
    percent = 100 * usage.used / (usage.used + usage.free)
    full = system.check_disk_space(tmp_path, 0.0)
    assert (full.outcome, full.detail["reason"]) == (Outcome.DEGRADED, "disk")
    assert full.detail["disk_usage_percent"] == pytest.approx(percent, abs=5)
    assert "above 0%" in str(full.error)
    assert system.check_disk_space(tmp_path, 100.0).outcome is Outcome.OK


@pytest.mark.parametrize("path", ["not/there/yet", "file.txt", "file.txt/below"])
def test_a_folder_that_is_not_there_is_measured_by_its_parent_and_not_made(tmp_path: Path, path: str) -> None:
    """Measuring makes nothing."""
    (tmp_path / "file.txt").touch()
    assert system.check_disk_space(tmp_path / path, 100.0).outcome is Outcome.OK
    assert [each.name for each in tmp_path.iterdir()] == ["file.txt"]


def test_a_relative_folder_is_measured_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without a root leads to the working directory."""
    monkeypatch.chdir(tmp_path)
    assert system.check_disk_space(Path("not/there"), 100.0).outcome is Outcome.OK


# -- ComponentChecker -----------------------------------------------------------------------------------------------


ALONE = """
from streamlit_extension import ComponentChecker
checker = ComponentChecker()
for _ in range(2):
    for name in ("database", "cache", "external_apis", "disk_space", "memory_usage"):
        found = getattr(checker, "check_" + name)()
        print(type(found).__name__, name, found.outcome.value, *sorted(found.detail))
checker.close()
checker.close()
import sys
print([name for name in ("sqlalchemy", "redis") if name in sys.modules])
"""


def test_every_check_runs_alone_with_defaults() -> None:
    """`ComponentChecker()` needs nothing, raises nothing, ends, and imports nothing that the application doesn't use."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    *lines, imported = done.stdout.splitlines()
    first, again = lines[:5], lines[5:]
    for found in (first, again):
        assert found[:3] == [
            "CheckResult database not_configured",
            "CheckResult cache not_configured",
            "CheckResult external_apis not_configured",
        ]
        assert re.fullmatch(r"CheckResult disk_space (ok|degraded) disk_usage_percent( reason)?", found[3])
        assert re.fullmatch(
            r"CheckResult memory_usage (ok|degraded) cpu_usage_percent memory_usage_percent( reason)?", found[4]
        )
    assert imported == "[]"


def test_thresholds_are_the_users(tmp_path: Path) -> None:
    """A threshold by its name of the specification wins over the default; the other one stays."""
    checker = ComponentChecker(data_dir=tmp_path, thresholds={"memory_usage": 0.0, "disk_usage": 0.0})
    assert checker.check_memory_usage().outcome is Outcome.DEGRADED
    assert checker.check_disk_space().outcome is Outcome.DEGRADED
    calm = ComponentChecker(data_dir=tmp_path, thresholds={"memory_usage": 100.0, "disk_usage": 100.0})
    assert calm.check_memory_usage().outcome is Outcome.OK
    assert calm.check_disk_space().outcome is Outcome.OK


def test_a_check_that_raises_is_a_failure_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system refuses is told, and never raised."""

    def refuse(_path: object) -> None:
        raise PermissionError("token=hunter2hunter2 refused\nsecond line")

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    found = ComponentChecker().check_disk_space()
    assert found.outcome is Outcome.FAILED
    assert found.error == "PermissionError: token=[REDACTED] refused"
