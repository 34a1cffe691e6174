"""Nothing of a run stays behind, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from serving import processes

REPOSITORY = Path(__file__).parents[2]
SLEEPS = "import time; print('ready', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def mark() -> str:
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a Python process and waits for its first line; all end with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str, mark: str | None = None, **options) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": str(REPOSITORY)} | ({processes.MARK: mark} if mark else {})
        made = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            **options,
        )
        started.append(made)
        made.first = made.stdout.readline().strip()
        assert made.first
        return made

    yield run
    for process in started:
        process.kill()
        process.communicate()


def swept(
    mark: str, folder: str = "/nowhere", grace_s: float = 0.5, before: str = "", spare: str = ""
) -> int:
    """Sweep in a process of its own, as a guard does: a sweep ends all children of whoever calls it."""
    code = (
        f"from serving import processes\n{before}\n"
        f"run = processes.Run({mark!r}, {folder!r})\n"
        f"print(processes.sweep(run, {grace_s}, frozenset([{spare}])))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=30
    )
    assert found.returncode == 0, found.stderr
    return int(found.stdout.splitlines()[-1])


def gone(pid: int, within_s: float = 0.0) -> bool:
    deadline = time.monotonic() + within_s
    while True:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)


def test_marked_processes_end_politely_or_not(start: Start, mark: str) -> None:
    polite, stubborn = start(SLEEPS, mark), start(STUBBORN, mark)
    assert swept(mark) == 2
    assert polite.wait(5) == -signal.SIGTERM
    assert stubborn.wait(5) == -signal.SIGKILL


def test_other_runs_and_strangers_are_left_alone(start: Start, mark: str, tmp_path: Path) -> None:
    mine, other, stranger = start(SLEEPS, mark), start(SLEEPS, mark + "x"), start(SLEEPS)
    near = start(f"held = open({str(tmp_path)!r} + 'x', 'w'); {SLEEPS}")  # beside the folder, not in it
    assert swept(mark, str(tmp_path)) == 1
    assert mine.wait(5) == -signal.SIGTERM
    assert [p.poll() for p in (other, stranger, near)] == [None, None, None]


def test_what_is_spared_lives(start: Start, mark: str) -> None:
    mine, spared = start(SLEEPS, mark), start(SLEEPS, mark)
    assert swept(mark, spare=str(spared.pid)) == 1
    assert (mine.wait(5), spared.poll()) == (-signal.SIGTERM, None)


def test_a_process_without_its_environment_is_known_by_its_files(
    start: Start, mark: str, tmp_path: Path
) -> None:
    holder = start(f"held = open({str(tmp_path / 'log')!r}, 'w'); {SLEEPS}")
    assert swept(mark, str(tmp_path)) == 1
    assert holder.wait(5) == -signal.SIGTERM


def test_children_in_other_sessions_end_even_when_their_parents_did(mark: str) -> None:
    """Without mark and files: started in a session of its own by a process that has since ended."""
    parent = (
        f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True, "
        "stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True); c.stdout.readline(); print(c.pid)"
    )
    before = (
        "import subprocess, sys, psutil\nprocesses.adopt_orphans()\n"
        f"made = subprocess.run([sys.executable, '-c', {parent!r}], capture_output=True, text=True, env={{}})\n"
        "orphan = psutil.Process(int(made.stdout))\n"
        "assert orphan.is_running() and orphan.pid in [c.pid for c in psutil.Process().children()]\n"
        "print(orphan.pid)"
    )
    code = f"from serving import processes\n{before}\nprint(processes.sweep(processes.Run({mark!r}, '/nowhere'), 0.3))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=30
    )
    assert found.returncode == 0, found.stderr
    pid, count = map(int, found.stdout.split())
    assert count == 1
    assert gone(pid)


def test_what_starts_during_the_sweep_ends_too(start: Start, mark: str) -> None:
    """A supervisor that answers SIGTERM by starting one more."""
    code = (
        "import signal, subprocess, sys, os\n"
        f"def more(*_): subprocess.Popen([sys.executable, '-c', {SLEEPS!r}], stdout=subprocess.DEVNULL); os._exit(0)\n"
        f"signal.signal(signal.SIGTERM, more)\n{SLEEPS}"
    )
    start(code, mark)
    assert swept(mark) == 2
    assert not [p for p in psutil.process_iter() if processes.Run(mark, "/nowhere").owns(p)]


def test_nothing_to_end_takes_no_time(mark: str) -> None:
    assert swept(mark, grace_s=30.0) == 0


def test_alive_is_about_this_run(start: Start, mark: str) -> None:
    process = start(SLEEPS, mark)
    assert processes.alive(process.pid, mark)
    assert not processes.alive(process.pid, "another")  # its number was given to someone else
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.alive(process.pid, mark)  # a zombie
    process.wait()
    assert not processes.alive(process.pid, mark)


@pytest.mark.parametrize("tied", [True, False])
def test_a_process_can_end_with_its_parent(start: Start, tied: bool) -> None:
    child = (
        "from serving import processes; import signal; processes.die_with_parent(signal.SIGTERM); "
        if tied
        else ""
    ) + "import time, os; print(os.getpid(), flush=True); time.sleep(60)"
    parent = start(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")
    pid = int(parent.first)
    try:
        parent.kill()
        if tied:
            assert gone(pid, 5)
        else:
            parent.wait()
            assert not gone(pid)
    finally:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)
