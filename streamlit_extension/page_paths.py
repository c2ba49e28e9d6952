"""Finds pages of an application whose path is one of ours. Only reads the source; nothing is run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from otel.patterns import lazy

#: The first parts of our paths; a page of that name can't be reached by its URL.
RESERVED: Final = ("health", "metrics", "telemetry")
_PAGE_FILE: Final = lazy(r"([0-9]*)[_ -]*(.*)\.py")  # as Streamlit reads a page's name from its file


def page_path_collisions(script: str | Path, path_prefix: str = "") -> list[str]:
    """Return one line for each page of `script` that our paths hide, each with its remedy; empty when there is none.

    Looks at `pages/` and at `st.Page(…)` with literal arguments in the script. A script that can't be read or parsed
    has no findings: running it will say more. With a `path_prefix` our paths have two parts and no page can have one.
    """
    if path_prefix.strip("/"):
        return []
    script = Path(script)
    return [
        f"page {where} has the path /{path}, which is ours: rename it or set path_prefix (STX_PATH_PREFIX=/ops)"
        for path, where in (*_page_files(script), *_declared_pages(script))
        if path in RESERVED
    ]


def _page_files(script: Path) -> Iterator[tuple[str, str]]:
    for file in sorted((script.parent / "pages").glob("*.py")):
        yield _name_of(file.name), f"pages/{file.name}"


def _name_of(file_name: str) -> str:
    match = _PAGE_FILE.search(file_name)
    if match is None:
        return ""
    return re.sub(r"[_ ]+", "_", match[2]).strip() or match[1]


def _declared_pages(script: Path) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(script.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) == "Page":
            path = _page_path(node)
            if path:
                yield path, f"in line {node.lineno} of {script.name}"


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _page_path(node: ast.Call) -> str | None:
    """Return the path that a page's literals give it: `url_path`, else the file's or the function's name."""
    given = {word.arg: word.value for word in node.keywords}
    if isinstance(default := given.get("default"), ast.Constant) and default.value is True:
        return None  # the default page is at the root
    if "url_path" in given:
        value = given["url_path"]
        return value.value.strip("/") if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
    page = node.args[0] if node.args else given.get("page")
    if isinstance(page, ast.Constant) and isinstance(page.value, str):
        return _name_of(Path(page.value).name)
    return page.id if isinstance(page, ast.Name) else None
