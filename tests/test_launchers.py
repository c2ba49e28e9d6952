"""Which scripts are launchers, and how one is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlit_extension.launchers import import_launcher, launcher_app_name


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """What a test imports is forgotten after it."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if name.startswith("launcher_") or name == "my_launcher":
            del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from streamlit_extension import create_app\napp = create_app('a.py')", "app"),
        ("from streamlit_extension import create_app as make\nsite = make('a.py')", "site"),
        ("from streamlit_extension.app import create_app\napp = create_app('a.py')", "app"),
        ("from streamlit_extension import *\napp = create_app('a.py')", "app"),
        ("import streamlit_extension as stx\napp = stx.create_app('a.py')", "app"),
        ("import streamlit_extension.app\napp = streamlit_extension.app.create_app('a.py')", "app"),
        ("from streamlit_extension import create_app\napp: object = create_app('a.py')", "app"),
        ("from streamlit_extension import create_app\nb = create_app('b.py')\napp = create_app('a.py')", "app"),
        ("import streamlit as st\napp = st.App('a.py')", "app"),
        ("from flaskish import create_app\napp = create_app()\n", None),
        ("import other\napp = other.create_app()\n", None),
        ("def create_app():\n    return 1\napp = create_app()\n", None),
        ("from streamlit_extension import create_app\ndef f():\n    app = create_app('a.py')\n", None),
        ("import streamlit as st\nst.title('x')\n", None),
        ("this is no Python", None),
    ],
)
def test_a_launcher_is_known_by_what_it_calls(tmp_path: Path, source: str, name: str | None) -> None:
    """Only our `create_app` and Streamlit's own applications make a launcher, whatever name they were imported by."""
    path = tmp_path / "some.py"
    path.write_text(source)
    assert launcher_app_name(path) == name


@pytest.mark.parametrize(
    "file", ["my.launcher.py", "queue.py", "class.py", "my_launcher.py", "json.py", "with-dash.py"]
)
def test_a_launcher_may_have_any_file_name(tmp_path: Path, file: str) -> None:
    """Also one that is no identifier, or that another module has: that module is not touched."""
    path = tmp_path / file
    path.write_text("import json, queue\napp = json.dumps(queue.Queue.__name__)\nme = __file__\n")
    before = sys.modules.get(path.stem)
    module = import_launcher(path)
    assert (module.app, module.me) == ('"Queue"', str(path))
    assert sys.modules[module.__name__] is module
    if before is not None:
        assert sys.modules[path.stem] is before


def test_a_launcher_that_fails_leaves_no_half_module(tmp_path: Path) -> None:
    """What it raises is the caller's, and importing it again runs it again."""
    path = tmp_path / "my_launcher.py"
    path.write_text("raise KeyError('boom')")
    for _ in range(2):
        with pytest.raises(KeyError, match="boom"):
            import_launcher(path)
        assert "my_launcher" not in sys.modules
