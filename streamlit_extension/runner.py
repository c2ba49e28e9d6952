"""Our own server: sockets, the event loop, the order of a start, and the exit code of a stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from streamlit_extension import listeners
from streamlit_extension.app import ObservableApp, create_app
from streamlit_extension.ending import close_loop, end_by_force, end_process
from streamlit_extension.endpoints.entitlement import is_loopback
from streamlit_extension.launchers import import_launcher, launcher_app_name
from streamlit_extension.logs.wiring import log_as_set
from streamlit_extension.settings import Settings
from streamlit_extension.streamlit_options import RunError, application_socket, option
from streamlit_extension.viewer.wiring import new_link

if TYPE_CHECKING:
    from streamlit_extension.endpoints.health import Next

_logger = logging.getLogger("streamlit_extension.runner")

#: How long an idle connection is kept, in seconds: longer than load balancers do (60 s by default in nginx and in AWS),
#: so that it is they who close it. uvicorn's own 5 s meet the next request half-way, which then fails.
KEEP_ALIVE_S = 75


class _Protocol(HttpToolsProtocol):
    """HTTP without access lines: Streamlit puts a handler on uvicorn's access logger again whatever the option says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False


class _Server(uvicorn.Server):
    """uvicorn's server with our handling of signals instead of its own (which ends with exit code -15)."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and look for garbage from now on: the command line has left that off until here."""
        try:
            await super().startup(sockets)
        finally:
            gc.enable()


def run_script(
    target: str,
    args: list[str],
    flag_options: Mapping[str, Any],
    settings: Settings,
    *,
    on_listening: Callable[[str], None] | None = None,
) -> int:
    """Serve a Streamlit script, or the launcher that it is, until stopped.

    Arguments:
        target: path of the script.
        args: what the script finds in `sys.argv[1:]`.
        flag_options: Streamlit's options from the command line, by their flags' parameter names (`server_port`).
        settings: ours.
        on_listening: called with the application's URL once its port accepts connections.

    Returns:
        The exit code: 0 after a clean stop.

    Raises:
        RunError: the script, an option, a port or a certificate is not usable.
    """
    path = os.path.abspath(target)
    if not os.path.isfile(path):
        raise RunError(f"no such script: {target}")
    _prepare_streamlit(path, args, flag_options)
    sockets = [_bind_application()]
    app = _application(path, settings)
    if on_listening is not None:
        on_listening(_root_url(sockets[0].getsockname()) + "/" + _base_path())
    return _serve(app, sockets)


def run_app(app: ObservableApp, config: Mapping[str, Any] | None = None) -> None:
    """Serve `app` as `st.App.run` would, then end the process; one line and exit code 2 where it can't start."""
    launcher = os.path.abspath(sys.argv[0] or "launcher.py")
    try:
        flags = {str(name).replace(".", "_"): value for name, value in (config or {}).items()}
        _refuse_unknown_options(config or {})
        _prepare_streamlit(launcher, sys.argv[1:], flags)
        code = _serve(app, [_bind_application()])
    except RunError as error:
        print(f"streamlit-extension: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)


# -- Streamlit's side of a start ------------------------------------------------------------------------------------


def _prepare_streamlit(path: str, args: list[str], flag_options: Mapping[str, Any]) -> None:
    """What `streamlit run` does before it serves: options, `sys.path`, `sys.argv`, watchers of `config.toml`."""
    from streamlit import config
    from streamlit.web import bootstrap

    config._main_script_path = path
    try:
        bootstrap.load_config_options(dict(flag_options))
    except Exception as error:
        raise RunError(f"Streamlit's configuration: {error}".splitlines()[0]) from error
    prepare = getattr(bootstrap, "_prepare_asgi_app_run_context", None)
    if prepare is not None:
        prepare(path, args, dict(flag_options))
        return
    sys.path.insert(0, os.path.dirname(path))
    sys.argv = [path, *args]
    with contextlib.suppress(AttributeError):
        bootstrap._install_config_watchers(dict(flag_options))
    config._server_mode = "starlette-app"


def _refuse_unknown_options(options: Mapping[str, Any]) -> None:
    from streamlit import config

    known = getattr(config, "_config_options_template", None)
    for name in options:
        if known is not None and name not in known:
            raise RunError(f"unknown Streamlit option {name!r}")


def _application(path: str, settings: Settings) -> ObservableApp:
    name = launcher_app_name(Path(path))
    if name is None:
        return create_app(path, settings=settings)
    try:
        inner = getattr(import_launcher(Path(path)), name)
    except RunError:
        raise
    except Exception as error:
        raise RunError(
            f"the launcher {path} can't be imported: {type(error).__name__}: {error}".splitlines()[0]
        ) from error
    return create_app(inner, settings=settings)


# -- sockets --------------------------------------------------------------------------------------------------------


def _bind_application() -> Any:
    """The application's own port: loopback unless `server.address` says otherwise."""
    address, port = application_socket()
    sock = _bind(address, port, "server.port")
    if port == 0:
        from streamlit import config

        config.set_option("server.port", sock.getsockname()[1])
    return sock


def _bind(address: str, port: int, setting: str) -> Any:
    try:
        return listeners.listening_socket(address, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"can't listen on {address} port {port} ({reason}); choose another {setting}") from error


# -- serving --------------------------------------------------------------------------------------------------------


def _serve(app: ObservableApp, sockets: list[Any]) -> int:
    try:
        app.open_management_port()
    except OSError as error:
        raise RunError(str(error)) from error
    app.logs = log_as_set(app.settings)
    server = _Server(_uvicorn_config(app))
    trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
    app.gate.inner = cast("Next", ProxyHeadersMiddleware(cast("Any", app.gate.inner), trusted_hosts=trusted))
    addresses = listeners.addresses_of(sockets)
    app.serve_with(server, lambda: addresses)
    _print_where_to_look(app, sockets[0].getsockname())
    loop = _new_event_loop()
    ended = threading.Event()
    threading.Thread(target=end_by_force, args=(app.shutdown, ended), name="stx-end", daemon=True).start()
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(server.serve(sockets))
        close_loop(loop)
    except SystemExit as error:
        return int(error.code or 0) if isinstance(error.code, int | None) else 1
    finally:
        ended.set()
        for sock in sockets:
            sock.close()
    return end_process(0 if server.started else 3)


def _uvicorn_config(app: ObservableApp) -> uvicorn.Config:
    options = _streamlit_server_options()
    cert, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if bool(cert) != bool(key):
        raise RunError("server.sslCertFile and server.sslKeyFile must be set together")
    for name, file in (("server.sslCertFile", cert), ("server.sslKeyFile", key)):
        if file and not os.access(file, os.R_OK):
            raise RunError(f"{name}: can't read {file}")
    options |= {
        "proxy_headers": False,
        "http": _Protocol,
        "loop": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "timeout_keep_alive": KEEP_ALIVE_S,
    }
    config = uvicorn.Config(app, **options)
    try:
        config.load()
    except OSError as error:
        raise RunError(f"TLS: {type(error).__name__}: {error}".splitlines()[0]) from error
    return config


def _streamlit_server_options() -> dict[str, Any]:
    """WebSocket and TLS options as Streamlit sets them for uvicorn; the essentials where that seam is missing."""
    certificate = {"ssl_certfile": option("server.sslCertFile"), "ssl_keyfile": option("server.sslKeyFile")}
    if bool(certificate["ssl_certfile"]) != bool(certificate["ssl_keyfile"]):
        return certificate
    try:
        from streamlit.web.server.starlette.starlette_server import _get_uvicorn_config_kwargs
    except ImportError:
        limit_bytes = int(option("server.maxMessageSize")) * 1024 * 1024
        return {**certificate, "ws_max_size": limit_bytes, "ws_ping_interval": 30, "ws_ping_timeout": 30}
    return dict(_get_uvicorn_config_kwargs())


def _new_event_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def _base_path() -> str:
    return str(option("server.baseUrlPath") or "").strip("/")


def _root_url(name: tuple[Any, ...]) -> str:
    everywhere = name[0] in ("0.0.0.0", "::")
    host = "localhost" if everywhere or is_loopback(name[0]) else name[0]
    scheme = "https" if option("server.sslCertFile") else "http"
    return f"{scheme}://[{host}]:{name[1]}" if ":" in host else f"{scheme}://{host}:{name[1]}"


def _print_where_to_look(app: ObservableApp, name: tuple[Any, ...]) -> None:
    root, base = _root_url(name), _base_path()
    prefix, port = app.settings.path_prefix, app.settings.management_port
    details = root if port is None else f"http://{app.settings.management_address}:{port}"
    link = new_link(app.settings, details)  # also when nothing is printed: `link` learns from it where the page is
    if option("logger.hideWelcomeMessage"):
        return
    print(
        f"\n  Application  {root}/{base}"
        f"\n  Health       {root}{prefix}/health   (also /ready, /live, /startup)"
        f"\n  Details      {details}{prefix}/health/detailed",
        flush=True,
    )
    print(f"  Telemetry    {link}   (opens once, within ten minutes)\n" if link else "", flush=True)
    if not option("server.headless"):
        from streamlit import cli_util

        cli_util.open_browser(f"{root}/{base}")
