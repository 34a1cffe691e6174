"""Servers of a benchmark are started, charged and ended: nothing is left, and a failure is told with its reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serving.bench.children import Child, Launch, clean_environment, free_port, spent
from serving.errors import StartFailed

# a server that leaves a daemon in a session of its own, then answers every POST
SERVER = """
import http.server, subprocess, sys
daemon = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open("daemon", "w").write(str(daemon.pid))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = b'{"choices": [1]}'
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def launch(folder: Path, code: str, **more: float) -> Launch:
    port = free_port()
    return Launch((sys.executable, "-c", code, str(port)), clean_environment(), folder, f"http://127.0.0.1:{port}",
                  "/v1/chat/completions", {}, "{}", **more)  # type: ignore[arg-type]


def gone(pid: int) -> bool:
    """Within some seconds, dead or a zombie that its parent has yet to collect."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_server_answers_is_charged_and_leaves_nothing(tmp_path: Path) -> None:
    child = Child("server", launch(tmp_path / "a", SERVER))
    try:
        child.wait_ready()
        daemon = int((tmp_path / "a" / "daemon").read_text())
        assert daemon in {p.pid for p in child.tree()}
        used = spent({}, child.cpu({"server": "serve_forever"}))
        assert used["server"] > 0 and set(used) == {"server", "rest"}
        assert child.rss() > 2**20
    finally:
        child.stop()
    assert gone(daemon) and gone(child.pid)


def test_when_the_holder_is_killed_by_force_the_server_goes_too(tmp_path: Path) -> None:
    """As when the benchmark itself is killed: the holder gets word and cleans up."""
    code = ("import sys; from pathlib import Path; from serving.bench.children import *;"
            "from tests_launch import launch; c = Child('s', launch(Path(sys.argv[1]))); c.wait_ready();"
            "print(c.pid, flush=True); import time; time.sleep(600)")
    (tmp_path / "tests_launch.py").write_text(
        "import sys\nfrom serving.bench.children import Launch, clean_environment, free_port\n"
        f"CODE = {SERVER!r}\n"
        "def launch(folder):\n    port = free_port()\n"
        "    return Launch((sys.executable, '-c', CODE, str(port)), clean_environment(), folder,"
        " f'http://127.0.0.1:{port}', '/v1/chat/completions', {}, '{}')\n")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "b")], stdout=subprocess.PIPE,
                          env=os.environ | {"PYTHONPATH": str(tmp_path)}) as bench:
        assert bench.stdout is not None
        holder = int(bench.stdout.readline())
        daemon = int((tmp_path / "b" / "daemon").read_text())
        bench.send_signal(signal.SIGKILL)
    assert gone(holder) and gone(daemon)


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = Child("server", launch(tmp_path / "c", "import sys; sys.exit('no such model')"))
    try:
        with pytest.raises(StartFailed, match="ended with code 1; its log ends: no such model"):
            child.wait_ready()
    finally:
        child.stop()


def test_a_server_that_never_answers_well_is_given_up(tmp_path: Path) -> None:
    child = Child("server", launch(tmp_path / "d", "import time; time.sleep(600)", start_s=0.3, stop_s=0.1))
    try:
        with pytest.raises(StartFailed, match="no good answer within 0.3 s"):
            child.wait_ready()
    finally:
        child.stop()
    assert gone(child.pid)


def test_cpu_is_what_came_between_two_readings() -> None:
    before = {("path", 1): 2.0, ("rest", 2): 5.0}
    after = {("path", 1): 2.5, ("path", 3): 0.25, ("rest", 2): 5.0}
    assert spent(before, after) == {"path": 0.75, "rest": 0.0}
