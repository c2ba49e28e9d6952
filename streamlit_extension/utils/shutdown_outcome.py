"""What became of one step or callback of a stop, which runs on a thread of its own."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Any

from otel.guard import redact_text

_logger = logging.getLogger("streamlit_extension.shutdown")


@dataclass(slots=True)
class Outcome:
    """What it returned or raised, once it is done."""

    value: Any = None
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def has_failed(self, name: str) -> bool:
        """Whether it is done and has failed, which is told in the log."""
        if self.error is None:
            return False
        _logger.warning(
            "%s failed while stopping: %s",
            name,
            redact_text(f"{type(self.error).__name__}: {self.error}"),
            extra={"event": "shutdown.step_failed", "step": name},
        )
        return True
