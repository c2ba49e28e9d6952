"""Stores of tests, with their ledger and reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel.ledger import Ledger
from otel.records import Batch, Signal
from otel.store.reader import StoreReader
from otel.store.store import Store


class Place:
    """A folder with its store and its reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger()
        self.reader = StoreReader(folder)
        self.stores: list[Store] = []

    def store(self, **options: Any) -> Store:
        """One more store, as another process would have."""
        store = Store(self.folder, self.ledger, **options)
        self.stores.append(store)
        return store

    def commit(self, store: Store, *batches: Batch) -> None:
        """Commit batches whose records were queued."""
        for batch in batches:
            self.ledger.queued(batch.signal, batch.count)
        store.commit(batches)

    def balance(self) -> list[int]:
        """What is accounted for nowhere, by signal."""
        snapshot = self.ledger.snapshot()
        return [snapshot[signal].balance + snapshot[signal].queued for signal in Signal]

    def close(self) -> None:
        """End all."""
        for store in self.stores:
            store.close(10)
        self.reader.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A folder for a store."""
    place = Place(tmp_path / "store")
    yield place
    place.close()
