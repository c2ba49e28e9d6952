"""The one service of all who were given none: a script that runs again and again makes no second one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamlit_extension.health.model import ServicePhase
from streamlit_extension.health.service import HealthService

if TYPE_CHECKING:
    from streamlit_extension.settings import Settings


class DefaultService:
    """The application's service while one serves in this process, else one of the process's own.

    Arguments:
        make: makes the process's own, at its first use.
    """

    def __init__(self, make: Callable[[], HealthService]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._own: HealthService | None = None
        self._applications: list[HealthService] = []

    def get(self) -> HealthService:
        """The service; nothing is started."""
        with self._lock:
            if self._applications:
                return self._applications[-1]
            if self._own is None:
                self._own = self._make()
            return self._own

    def start(self) -> None:
        """Let the process's own service run its checks; an application's is the application's to start."""
        with self._lock:
            own = None if self._applications else self._own
        if own is not None:
            own.start()
            own.set_phase(ServicePhase.SERVING)

    def serve(self, application: HealthService) -> Callable[[], None]:
        """Give out this application's service from now on; returns what ends it."""
        with self._lock:
            self._applications.append(application)

        def end() -> None:
            with self._lock:
                self._applications = [each for each in self._applications if each is not application]

        return end


def standalone_service(settings: Settings | None = None) -> HealthService:
    """A service with the checks that settings call for, and no thread of its own until it is started."""
    from streamlit_extension.health.wiring import register_checks
    from streamlit_extension.settings import Settings

    settings = settings or Settings.load()
    service = HealthService(version=settings.service_version, shared_failure=settings.health.shared_failure)
    register_checks(service, settings)
    return service


#: Whose health is told by those that were given no service.
DEFAULT_SERVICE = DefaultService(standalone_service)
