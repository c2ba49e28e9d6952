"""Which requests are for the application's own routes, and by which template: asked of the routes themselves.

Streamlit's own paths, its pages and files have no routes of the application's; neither have files that it serves. Only
what Starlette and FastAPI say of themselves is used; of an application that shows no routes nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import msgspec

#: Applications in applications that are looked into.
_MAX_DEPTH = 10


class Route(msgspec.Struct, frozen=True):
    """One of the application's own routes: its template (None: no route matched), and the values in this request."""

    template: str | None
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)


def find_route(app: Any, scope: MutableMapping[str, Any]) -> Route | None:
    """The application's own route that will serve the request; None: Streamlit's, a file, or nothing that is known."""
    app = _innermost(app)
    routes = _user_routes(app)
    if routes is not None:
        return _among(routes, scope, "", 0) if routes else None
    if getattr(app, "routes", None) is None:
        return None
    routes = app.routes
    found = _among(routes, scope, "", 0)
    return found if found is not None or _any_matches(routes, scope) else Route(None)


def _innermost(app: Any) -> Any:
    """The application inside its middleware."""
    for _ in range(_MAX_DEPTH):
        if _user_routes(app) is not None or getattr(app, "routes", None) is not None or not hasattr(app, "app"):
            return app
        app = app.app
    return app


def _user_routes(app: Any) -> Any | None:
    """The application's own routes of a `st.App`, or None for any other application."""
    return getattr(app, "_user_routes", None)


def _among(routes: Iterable[Any], scope: MutableMapping[str, Any], prefix: str, depth: int) -> Route | None:
    for route, child in _matching(routes, scope):
        return _of(route, {**scope, **child}, prefix, depth)
    return None


def _matching(routes: Iterable[Any], scope: MutableMapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The routes that match, in Starlette's order: the first full match, else the first partial one."""
    from starlette.routing import Match

    partial = None
    for route in routes:
        match, child = route.matches(dict(scope))
        if match is Match.FULL:
            yield route, child
            return
        if match is Match.PARTIAL and partial is None:
            partial = route, child
    if partial is not None:
        yield partial


def _any_matches(routes: Iterable[Any], scope: MutableMapping[str, Any]) -> bool:
    return any(True for _ in _matching(routes, scope))


def _of(route: Any, scope: MutableMapping[str, Any], prefix: str, depth: int) -> Route | None:
    if hasattr(route, "effective_candidates"):  # FastAPI's router inside a router, which has no path of its own
        return _among(route.effective_candidates(), scope, prefix, depth + 1) or Route(prefix or None)
    shown = getattr(route, "starlette_route", None) or route
    template = prefix + (getattr(shown, "path_format", None) or getattr(route, "path_format", None) or "")
    params = scope.get("path_params", {})
    mounted = getattr(shown, "app", None)
    if not _is_mount(shown) or depth >= _MAX_DEPTH:
        return Route(template or "/", params)
    template = template.removesuffix("/{path}")
    mounted = _innermost(mounted)
    user_routes = _user_routes(mounted)
    if user_routes is not None:
        return _among(user_routes, scope, template, depth + 1) if user_routes else None
    if type(mounted).__name__ == "StaticFiles" or any(kind.__name__ == "StaticFiles" for kind in type(mounted).__mro__):
        return None
    inner = getattr(mounted, "routes", None)
    if inner:
        found = _among(inner, scope, template, depth + 1)
        if found is not None or _any_matches(inner, scope):
            return found
    return Route(template or "/", params)


def _is_mount(route: Any) -> bool:
    from starlette.routing import Host, Mount

    return isinstance(route, (Mount, Host))
