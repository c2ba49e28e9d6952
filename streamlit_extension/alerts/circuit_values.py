"""What circuits are made of, and whether it can be."""

from __future__ import annotations

import math
from typing import Protocol


class Clock(Protocol):
    """Monotonic time."""

    def monotonic(self) -> float:
        """Return seconds, not negative."""


def check_circuit(name: object, failures: object, reset_s: object) -> None:
    """Raise ValueError, in one line, for what no circuit can be made of."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"circuit {name!r}: its name is text, not empty")
    if isinstance(failures, bool) or not isinstance(failures, int) or failures < 1:
        raise ValueError(f"circuit {name!r}: failures={failures!r} is no whole number of at least 1")
    if isinstance(reset_s, bool) or not isinstance(reset_s, int | float) or not 0 < reset_s < math.inf:
        raise ValueError(f"circuit {name!r}: reset_s={reset_s!r} is no number of seconds above 0")
