"""The embedded store: telemetry in SQLite below the data folder, written by every process and read by any.

`Store` takes the pipeline's batches, `StoreReader` answers questions, `model` holds what it answers with.
"""

from __future__ import annotations

from typing import Final

#: Name of the store's folder below the data folder.
FOLDER: Final = "store"
