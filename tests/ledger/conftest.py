"""A fresh ledger for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.ledger.store import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "state" / "ledger.db")
