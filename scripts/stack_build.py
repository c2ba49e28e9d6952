"""Build the real backends that tests talk to, from the Go modules under tests/stack: `stack_build.py kube etcd`.

Each module is built once for what its files hold and for the Go that builds it, into NAME-HASH/ in a folder of the user
(`STX_STACK_CACHE`, else `streamlit-extension/stack` in the cache of the user), so that another checkout finds it; the
folder is printed. What nobody has used for a month goes when something new is built.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
MODULES = ROOT / "tests" / "stack"
_UNUSED_S: Final = 30 * 86_400.0


class BuildError(Exception):
    """A program can't be built here; the text says why."""


def modules() -> list[str]:
    """Return the names of what can be built."""
    return sorted(path.parent.name for path in MODULES.glob("*/go.mod"))


def cache() -> Path:
    """Return the folder of all that was built."""
    chosen = os.environ.get("STX_STACK_CACHE")
    if chosen:
        return Path(chosen).absolute()
    of_user = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(of_user) if of_user.startswith("/") else Path.home() / ".cache") / "streamlit-extension" / "stack"


def folder_of(name: str) -> Path:
    """Return where a module's programs are, or will be: the name tells what they were built from, and with which Go."""
    sources = sorted(path for path in (MODULES / name).iterdir() if path.suffix in (".go", ".mod", ".sum"))
    digest = hashlib.sha256(_toolchain())
    for path in sources:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return cache() / f"{name}-{digest.hexdigest()[:16]}"


@functools.cache
def _toolchain() -> bytes:
    go = shutil.which("go")
    if go is None:
        return b""
    asked = [go, "env", "GOVERSION", "GOOS", "GOARCH", "CGO_ENABLED"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, check=False).stdout


def build(name: str) -> Path:
    """Build a module's programs unless they are there, and return their folder; others wait for whoever began first.

    Raises:
        BuildError: there is no such module, no Go, or the build failed.
    """
    if name not in modules():
        raise BuildError(f"there is no module {name!r}; there are {', '.join(modules())}")
    folder = folder_of(name)
    if folder.is_dir():
        os.utime(folder)  # tells that somebody still uses it
        return folder
    go = shutil.which("go")
    if go is None:
        raise BuildError("Go is not installed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent / f"{name}.lock"):
        if not folder.is_dir():
            _build_into(folder, MODULES / name, go)
            _forget_unused(folder)
    return folder


def _build_into(folder: Path, module: Path, go: str) -> None:
    """Build into a draft and rename it: what has its name is whole."""
    has_tools = re.search(r"^tool\b", (module / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    # `tool` is every program that go.mod names as one.
    command = [
        go,
        "build",
        "-mod=readonly",
        "-ldflags=-s -w",
        "-o",
        f"{draft}/",
        "tool" if has_tools else ".",
    ]
    print(f"building {module.name} (minutes, once)", file=sys.stderr, flush=True)
    ended = subprocess.run(
        [*_nicely(), *command],
        cwd=module,
        env={**os.environ, "GOFLAGS": "-buildvcs=false"},
        capture_output=True,
        check=False,
    )
    if ended.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        raise BuildError(f"go build of {module.name}: {ended.stderr.decode(errors='replace')[-2000:]}")
    draft.chmod(0o755)
    draft.rename(folder)


def _forget_unused(newest: Path) -> None:
    """Remove what the same module was built from before, and who died while building, once it is old."""
    name = newest.name.rpartition("-")[0]
    for each in newest.parent.iterdir():
        if each != newest and each.is_dir() and each.name.lstrip(".").startswith(f"{name}-"):
            with contextlib.suppress(OSError):
                if time.time() - each.stat().st_mtime > _UNUSED_S:
                    shutil.rmtree(each, ignore_errors=True)


def _nicely() -> list[str]:
    nice = shutil.which("nice")
    return [nice, "-n", "19"] if nice else []


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def main(names: list[str]) -> int:
    """Build what is named, or everything, and print the folders."""
    try:
        for name in names or modules():
            print(build(name))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
