"""Which scripts are launchers, under which name they hold their application, and how one is started."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from streamlit_extension.settings import Settings, SettingsError

#: The package whose `create_app` makes a launcher; a function of that name from anywhere else does not.
_PACKAGE = "streamlit_extension"


def launcher_app_name(path: Path) -> str | None:
    """The name under which a launcher holds its application (`app = st.App(…)`, `app = create_app(…)`), else None.

    Read from the source; nothing is run.
    """
    name = _assigned_from_create_app(path)
    if name is not None:
        return name
    try:
        from streamlit.web.server.app_discovery import discover_asgi_app
    except ImportError:
        return None
    found = discover_asgi_app(path)
    return found.app_name if found.is_asgi_app else None


def import_launcher(path: Path) -> ModuleType:
    """Run a launcher as a module of its own, whatever its file is called (`my.launcher.py`, `queue.py`).

    It has the name of its file where no other module has that, so that `pickle` and imports from it work as usual.

    Raises:
        Exception: whatever the launcher raises.
    """
    name = path.stem if _is_free(path) else f"launcher_{zlib.crc32(os.fsencode(path)):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _is_free(path: Path) -> bool:
    """Whether importing a module of the file's name would find this very file, or nothing."""
    stem = path.stem
    if not stem.isidentifier() or stem in sys.modules:
        return False
    spec = importlib.util.find_spec(stem)
    return spec is None or (spec.origin is not None and Path(spec.origin).resolve() == path.resolve())


def _assigned_from_create_app(path: Path) -> str | None:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    names_of_ours = _names_of_create_app(tree)
    names: list[str] = []
    for target, value in _assignments(tree):
        if isinstance(value, ast.Call) and _dotted(value.func) in names_of_ours:
            names.append(target)
    return "app" if "app" in names else (names[-1] if names else None)


def _names_of_create_app(tree: ast.Module) -> set[str]:
    """By which names the source can call our `create_app`."""
    functions: set[str] = set()
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in (_PACKAGE, f"{_PACKAGE}.app"):
                    modules.add(alias.asname or alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                if node.module in (_PACKAGE, f"{_PACKAGE}.app") and alias.name in ("create_app", "*"):
                    functions.add(alias.asname or "create_app")
                elif node.module == _PACKAGE and alias.name == "app":
                    modules.add(alias.asname or alias.name)
    return functions | {f"{each}.create_app" for each in modules}


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Top-level `name = value` and `name: type = value`."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of nested attributes, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def settings_of_launcher() -> Settings:
    """Settings for an application that a launcher makes.

    A bad one that nobody catches ends the process as `streamlit-extension run` does: one line and exit code 2,
    whichever server has imported the launcher.

    Raises:
        SettingsError: a setting is unknown or its value is not allowed.
    """
    try:
        return Settings.load()
    except SettingsError as error:
        _end_in_one_line(error)
        raise


def _end_in_one_line(expected: SettingsError) -> None:
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if error is not expected:
            previous(kind, error, trace)
            return
        print(f"streamlit-extension: {error}", file=sys.stderr)
        raise SystemExit(2)

    sys.excepthook = hook


def application_of(script_or_app: Any) -> Any:
    """The ASGI application that `create_app` was given, or that of the script whose path it was given.

    Raises:
        TypeError: it was given neither.
    """
    if isinstance(script_or_app, (str, Path)):
        from streamlit.starlette import App

        return App(script_or_app)
    if callable(script_or_app):
        return script_or_app
    raise TypeError(
        f"create_app() got {type(script_or_app).__name__}; "
        "allowed are the path of a script, a st.App, or an ASGI application"
    )
