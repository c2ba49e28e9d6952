"""Build the real backends that tests talk to, from the modules under tests/stack: `stack_build.py kube etcd`.

A module is one of Go (go.mod, go.sum) or of Maven: pom.xml, the hashes of the jars that it brings (jars.sha256), and a
script for each program (NAME.sh), with the Java beside it that it runs from the source. Each is built once for what its
files hold and for the Go that builds it, into NAME-HASH/ in a folder of the user (`STACK_CACHE`, else
`streamlit-extension/stack` in the cache of the user), so that another checkout finds it; the folder is printed. What
nobody has used for a month goes when something is built.
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
_SOURCES: Final = (".go", ".mod", ".sum", ".java", ".sh", ".sha256", ".xml")


class BuildError(Exception):
    """A program can't be built here; the text says why."""


def modules() -> list[str]:
    """Return the names of what can be built."""
    return sorted(path.parent.name for kind in ("go.mod", "pom.xml") for path in MODULES.glob(f"*/{kind}"))


def tools_of(name: str) -> tuple[str, ...]:
    """Return the programs that a module is built with."""
    if not (MODULES / name / "pom.xml").exists():
        return ("go",)
    return ("mvn", "javac") if any((MODULES / name).glob("*.java")) else ("mvn", "java")


def cache() -> Path:
    """Return the folder of all that was built."""
    chosen = os.environ.get("STACK_CACHE")
    if chosen:
        return Path(chosen).absolute()
    of_user = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(of_user) if of_user.startswith("/") else Path.home() / ".cache") / "streamlit-extension" / "stack"


def folder_of(name: str) -> Path:
    """Return where a module's programs are, or will be: the name tells what they were built from, and with which Go."""
    sources = sorted(path for path in (MODULES / name).rglob("*") if path.suffix in _SOURCES)
    digest = hashlib.sha256(_toolchain() if "go" in tools_of(name) else b"")
    for path in sources:
        digest.update(path.relative_to(MODULES / name).as_posix().encode() + b"\0" + path.read_bytes())
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
        BuildError: there is no such module, what it is built with is missing, or the build failed.
    """
    if name not in modules():
        raise BuildError(f"there is no module {name!r}; there are {', '.join(modules())}")
    folder = folder_of(name)
    if folder.is_dir():
        os.utime(folder)  # tells that somebody still uses it
        return folder
    missing = [tool for tool in tools_of(name) if shutil.which(tool) is None]
    if missing:
        raise BuildError(f"{', '.join(missing)} is not installed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent / f"{name}.lock"):
        if not folder.is_dir():
            _build_into(folder, MODULES / name)
            _forget_unused(folder)
    return folder


def _build_into(folder: Path, module: Path) -> None:
    """Build into a draft and rename it: what has its name is whole."""
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    print(f"building {module.name} (minutes, once)", file=sys.stderr, flush=True)
    try:
        if (module / "pom.xml").exists():
            _gather_jars(draft, module)
        else:
            _build_go(draft, module)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    draft.chmod(0o755)
    draft.rename(folder)


def _build_go(draft: Path, module: Path) -> None:
    has_tools = re.search(r"^tool\b", (module / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    # `tool` is every program that go.mod names as one.
    what = "tool" if has_tools else "."
    command = ["go", "build", "-mod=readonly", "-ldflags=-s -w", "-o", f"{draft}/", what]
    _run(command, module, {**os.environ, "GOFLAGS": "-buildvcs=false"})


def _gather_jars(draft: Path, module: Path) -> None:
    """Fetch what pom.xml names, and take it only if it is, jar by jar, what jars.sha256 says."""
    command = ["mvn", "--batch-mode", "--quiet", "dependency:copy-dependencies", f"-DoutputDirectory={draft / 'jars'}"]
    _run([*command, f"--file={module / 'pom.xml'}"], draft, dict(os.environ))  # it runs beside the sources, not in them
    listed = (module / "jars.sha256").read_text(encoding="utf-8").split()
    wanted = dict(zip(listed[1::2], listed[::2], strict=True))
    found = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in (draft / "jars").iterdir()}
    wrong = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if wrong:
        raise BuildError(f"{module.name}: {', '.join(wrong)} are not what jars.sha256 says")
    for source in module.glob("*.java"):
        shutil.copyfile(source, draft / source.name)
    for script in module.glob("*.sh"):
        program = draft / script.stem
        shutil.copyfile(script, program)
        program.chmod(0o755)


def _run(command: list[str], folder: Path, environ: dict[str, str]) -> None:
    done = subprocess.run([*_nicely(), *command], cwd=folder, env=environ, capture_output=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace")
        raise BuildError(f"{' '.join(command[:2])} in {folder.name}: {said[-2000:]}")


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
