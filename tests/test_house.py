"""The rules of the house, read from the imports and from what is tracked."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.requirements import program, require

ROOT = Path(__file__).parents[1]
MAX_LINES = 350

#: Who may not import whom: folder or file → what it must not know. What a room doesn't know can't change under it.
FORBIDDEN = {
    "otel": ("streamlit_extension",),
    "streamlit_extension/health": (
        "streamlit_extension.endpoints",
        "streamlit_extension.viewer",
        "streamlit_extension.app",
        "streamlit_extension.runner",
        "streamlit_extension.alerts",
        "starlette",
        "uvicorn",
    ),
    "streamlit_extension/endpoints": (
        "streamlit_extension.viewer",
        "streamlit_extension.app",
        "streamlit_extension.runner",
        "streamlit_extension.alerts",
        "streamlit_extension.utils",
        "streamlit_extension.demo",
    ),
    "streamlit_extension/alerts": (
        "streamlit_extension.endpoints",
        "streamlit_extension.viewer",
        "streamlit_extension.app",
        "streamlit_extension.runner",
    ),
    "streamlit_extension/viewer": (
        "streamlit_extension.endpoints.health",
        "streamlit_extension.app",
        "streamlit_extension.runner",
        "streamlit_extension.utils",
        "streamlit_extension.demo",
    ),
    "streamlit_extension/utils": (
        "streamlit_extension.endpoints",
        "streamlit_extension.viewer",
        "streamlit_extension.app",
        "streamlit_extension.runner",
        "streamlit_extension.demo",
    ),
    "streamlit_extension/monitoring": (
        "streamlit_extension.endpoints",
        "streamlit_extension.viewer",
        "streamlit_extension.app",
        "streamlit_extension.runner",
        "streamlit_extension.utils",
        "streamlit_extension.demo",
    ),
    "streamlit_extension/settings.py": (
        "streamlit_extension.endpoints",
        "streamlit_extension.health",
        "streamlit_extension.app",
        "streamlit_extension.utils",
        "otel",
    ),
}

#: Who may import the SDK or the official exporters: file → what, all of it for None. `providers.py` alone builds.
SDK_IMPORTS: dict[str, tuple[str, ...] | None] = {
    "otel/providers.py": None,
    # The SDK's classes as the pipeline needs them; `providers.py` puts them together.
    "otel/sdk.py": None,
    # The official encoders, and their parts for what is rare in spans.
    "otel/encoding.py": (
        "opentelemetry.exporter.otlp.proto.common",
        "opentelemetry.sdk.metrics.export.MetricsData",
        "opentelemetry.sdk.resources.Resource",
    ),
    "otel/span_encoding.py": ("opentelemetry.exporter.otlp.proto.common._internal",),
    # The value types that a redacted copy is made of.
    "otel/cleaning.py": (
        "opentelemetry.sdk.trace.ReadableSpan",
        "opentelemetry.sdk.trace.Event",
        "opentelemetry.sdk.metrics.export.MetricsData",
    ),
    # Types alone.
    "otel/pipeline.py": ("opentelemetry.sdk.trace.ReadableSpan",),
    "otel/sizes.py": ("opentelemetry.sdk.trace.ReadableSpan",),
    "otel/testing.py": ("opentelemetry.sdk.trace.ReadableSpan",),
}

#: Who may import more of Streamlit than `import streamlit as st`: file → what, all of it for None.
STREAMLIT_INTERNALS: dict[str, tuple[str, ...] | None] = {
    "otel/instrumentation/streamlit/reading.py": None,
    "otel/instrumentation/streamlit/seams.py": None,
    "streamlit_extension/runner.py": None,
    # Liveness is the runtime's own state and nothing else's.
    "streamlit_extension/liveness.py": ("streamlit.runtime.Runtime",),
    # The runner's reading of launchers: Streamlit's own discovery is asked, so that both find the same.
    "streamlit_extension/launchers.py": ("streamlit.web.server.app_discovery", "streamlit.starlette.App"),
    # The commands take every option of `streamlit run` as it is, and its way of reading a GitHub page's address.
    "streamlit_extension/cli_run.py": ("streamlit.web.cli", "streamlit.url_util"),
    # Options are read by the public function; where one was set, and that they are read anew, is Streamlit's own to say.
    "streamlit_extension/streamlit_options.py": ("streamlit.get_option", "streamlit.config"),
    # The canary is a session client without a browser: the message it sends and the interface it fulfils.
    "streamlit_extension/canary.py": (
        "streamlit.proto",
        "streamlit.runtime.Runtime",
        "streamlit.runtime.get_instance",
        "streamlit.runtime.session_manager",
    ),
    # Streamlit's loggers keep handlers of their own, which must be put back as they were.
    "streamlit_extension/logs/setup.py": ("streamlit.logger",),
    # Simulated users speak Streamlit's protocol on the wire.
    "streamlit_extension/demo/client.py": ("streamlit.proto",),
}

#: The rooms that only the composition root may know all of.
ROOMS = ("endpoints", "health", "monitoring", "utils", "viewer", "alerts")


def modules(*folders: str) -> Iterator[Path]:
    """The Python files of some folders."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def inside(path: Path) -> str:
    """The path below the project's folder, with slashes."""
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of all that a file imports, at the top and inside functions, for types too."""
    package = [*path.relative_to(ROOT).with_suffix("").parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{prefix}.{alias.name}" for alias in node.names}
    return frozenset(found)


def below(name: str, roots: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the roots or something in it."""
    return any(name == root or name.startswith(root + ".") for root in roots)


@pytest.mark.parametrize("place", FORBIDDEN)
def test_a_room_does_not_know_those_that_build_on_it(place: str) -> None:
    """Imports go one way: otel ← health ← endpoints, viewer, alerts ← app."""
    files = [ROOT / place] if place.endswith(".py") else list(modules(place))
    found = {inside(file): [name for name in imports(file) if below(name, FORBIDDEN[place])] for file in files}
    assert {file: names for file, names in found.items() if names} == {}


def test_only_named_files_import_the_sdk() -> None:
    """Whoever else needs a tracer, meter or logger takes it from the API or is handed it."""
    found = {}
    for file in modules("otel", "streamlit_extension"):
        allowed = SDK_IMPORTS.get(inside(file), ())
        if allowed is None:
            continue
        names = [name for name in imports(file) if below(name, ("opentelemetry.sdk", "opentelemetry.exporter"))]
        found[inside(file)] = sorted(name for name in names if not below(name, allowed))
    assert {file: names for file, names in found.items() if names} == {}


def test_only_named_files_import_streamlits_internals() -> None:
    """Streamlit's internals are touched in a few named files, so that a new Streamlit is one place's work."""
    found = {}
    for file in modules("otel", "streamlit_extension"):
        allowed = STREAMLIT_INTERNALS.get(inside(file), ())
        if allowed is None:
            continue
        names = [name for name in imports(file) if name.startswith("streamlit.") and not below(name, allowed)]
        if names:
            found[inside(file)] = sorted(names)
    assert found == {}


def test_every_exception_is_still_needed() -> None:
    """A name in the tables above that no file imports any more is taken out."""
    for table, root in ((STREAMLIT_INTERNALS, "streamlit"), (SDK_IMPORTS, "opentelemetry")):
        for file, allowed in table.items():
            names = imports(ROOT / file)
            assert [each for each in allowed or () if not any(below(name, (each,)) for name in names)] == [], file
            assert any(name.split(".")[0] == root for name in names), file


def test_only_the_composition_root_knows_every_room() -> None:
    """`app.py` wires the rooms together; whatever it wires can be built without the others."""
    there = [room for room in ROOMS if (ROOT / "streamlit_extension" / room / "__init__.py").exists()]
    wanted = [f"streamlit_extension.{room}" for room in there] + ["otel"]
    knows_all = {
        inside(file)
        for file in modules("otel", "streamlit_extension")
        if all(any(below(name, (room,)) for name in imports(file)) for room in wanted)
    }
    # The package's own `__init__` names the public surface lazily and wires nothing.
    assert knows_all - {"streamlit_extension/__init__.py"} == {"streamlit_extension/app.py"}


def test_no_module_outgrows_a_sitting() -> None:
    """A module of more than 350 lines does more than one thing."""
    counts = {
        inside(file): len(file.read_text(encoding="utf-8").splitlines())
        for file in modules("otel", "streamlit_extension", "scripts", "benchmarks")
    }
    assert {file: count for file, count in counts.items() if count > MAX_LINES} == {}


def test_the_probe_script_needs_the_standard_library_alone() -> None:
    """It is copied into images that hold nothing else."""
    import sys

    names = {name.split(".")[0] for name in imports(ROOT / "scripts/health_check.py")}
    assert names <= sys.stdlib_module_names


def tracked() -> list[Path]:
    """Every file under version control that is text."""
    require((ROOT / ".git").exists(), "a clone, to know which files are tracked")
    listed = subprocess.run([program("git"), "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(
        b"\0"
    )
    files = [ROOT / name.decode() for name in listed if name]
    return [file for file in files if file.is_file() and b"\0" not in file.read_bytes()[:8000]]


def test_nothing_tracked_names_a_machine_or_a_registry() -> None:
    """No path of anybody's machine and no address that a package was fetched from is in a tracked file."""
    # Written in parts, so that these lines don't find themselves.
    homes = "|".join(["/ro" + "ot/", "/ho" + r"me/\w+/", "/Us" + r"ers/\w+/", re.escape(f"{ROOT}/"), r"\.py" + "env/"])
    hosts = "|".join(["--(extra-)?index" + "-url[= ]http", "//pypi" + r"\.", "//files" + r"\.pythonhosted"])
    wrong = re.compile(f"{homes}|{hosts}")
    found = {
        f"{inside(file)}:{number}"
        for file in tracked()
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if wrong.search(line)
    }
    assert found == set()


def pins(lock: str) -> dict[str, str]:
    """Name → version of a lock file."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


LOCKS = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_release_has_a_hash_and_no_address(lock: str) -> None:
    """A lock is `name==version [; marker]` and its hashes, nothing else."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    entry = re.compile(r"[A-Za-z0-9._-]+(\[[^\]]*\])?==\S+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+ *")
    assert [line[:80] for line in lines if not entry.fullmatch(line)] == []
    assert len(lines) > (3 if lock == "build.txt" else 50)


#: Locks of a part: the benchmarks' peers, and what the image holds and is built with (tests/deploy/test_image.py).
PARTS = ("peers.txt", "image.txt", "build.txt")


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock not in PARTS])
def test_the_locks_hold_what_the_project_asks_for(lock: str) -> None:
    """Each dependency of the project file is locked at a release that it allows: `make lock` was not forgotten."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        asked += extra
    found = pins(lock)
    wrong = []
    for text in asked:
        each = Requirement(text)
        name = canonicalize_name(each.name)
        if name == "streamlit-extension" or (each.marker and not each.marker.evaluate()):
            continue
        if name not in found or not each.specifier.contains(found[name], prereleases=True):
            wrong.append(f"{text}: locked {found.get(name)}")
    assert wrong == []


def test_the_oldest_lock_is_the_oldest_that_is_promised() -> None:
    """The lower bounds of the host and the database library are the releases that the second test run uses."""
    found = pins("oldest.txt")
    assert found["streamlit"].startswith("1.57.")
    assert found["sqlalchemy"].startswith("2.0.")
