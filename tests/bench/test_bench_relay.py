"""The gateway with everything on before the fake engine, in processes of their own, as the benchmark runs them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from serving.bench import relay
from serving.bench.arms import Place
from serving.bench.children import Child, apply, free_port


@pytest.mark.parametrize("name", ["flotilla", "flotilla-http", "plain-relay"])
def test_streams_and_whole_answers_pass(name: str, tmp_path: Path) -> None:
    fake, engine = relay._fake(tmp_path, ())
    place = Place(tmp_path / name, Path(), tmp_path, free_port(), free_port())
    launch = replace(relay.STARTERS[name][1](place, fake), start_s=30.0)
    child = Child(name, launch)
    try:
        child.wait_ready()
        load = relay._loader(launch, ())
        assert apply(load(20, False, 4, 1, 0)).completion == [1] * 20
        seen = apply(load(8, True, 4, 10, 200))
        assert seen.completion == [10] * 8 and seen.events == [12] * 8
    finally:
        child.stop()
        engine.stop()
    if name.startswith("flotilla"):  # it really kept records, and read the cost's usage
        with sqlite3.connect(tmp_path / name / "state" / "ledger.db") as ledger:
            count, = ledger.execute("SELECT count(*) FROM requests").fetchone()
        assert count == 1 + 20 + 8
