"""Consoles open on a benchmark's gateway: all of them see frames, and it says what they take."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from serving.bench import arms
from serving.bench.arms import Place


def test_pages_open_and_their_cost_is_told(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    fleet = arms.fleet_file(Path("nowhere"), {"overload": {"max_in_flight": 10}}, {"port": 1}, None)
    for name, text in arms.flotilla(Place(tmp_path, Path(), Path(), 1, 2), fleet).files.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "serving.bench.consoles", str(tmp_path), "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        assert 0 <= float(child.stdout.readline()) < 1
        assert child.wait(20) == 0
