"""Makes .venv with everything Flotilla needs, or reuses it. Standard library only: it runs before anything is there.

Used by `deployments/demo` and `tests/run`. What is installed is pinned by hash in `requirements/`; a stamp in .venv
names the pins it was made from, so that a changed pin is installed and an interrupted install is never taken for done.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
_PINS = ROOT / "deployments" / "requirements"
Say = Callable[[str], None]


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def ensure(dev: bool, say: Say) -> bool:
    """Make sure .venv holds the pins (and the tests' tools with `dev`). Returns whether anything had to be done.

    Raises: SetupError.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs before any installer could check
        raise SetupError(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    with _lock():
        wanted = _wanted(dev)
        stamp = VENV / "flotilla-pins"
        have = stamp.read_text().split() if stamp.exists() else []
        if all(w in have for w in wanted):
            return False
        try:
            if not have or wanted[0] not in have:
                shutil.rmtree(VENV, ignore_errors=True)
                say("making .venv")
                _run([sys.executable, "-m", "venv", str(VENV)],
                     "python3 -m venv failed; on Debian: apt-get install python3-venv")
                have = []
            for name, pin in zip(_layers(dev), wanted, strict=True):
                if pin not in have:
                    _install(name, say)
                    have.append(pin)
            stamp.write_text("\n".join(have) + "\n")
        except BaseException:
            if not stamp.exists():
                say("removing the unfinished .venv")
                shutil.rmtree(VENV, ignore_errors=True)
            raise
    return True


def _layers(dev: bool) -> list[str]:
    return ["torch", "cpu", "own"] + (["dev"] if dev else [])


def _wanted(dev: bool) -> list[str]:
    """A stamp per layer: its name and the hash of what it is made from."""
    sources = {"own": [ROOT / "pyproject.toml", _PINS / "vllm-metadata" / "pyproject.toml"]}
    stamps = []
    for name in _layers(dev):
        digest = hashlib.sha256(f"{sys.version_info[:2]} {VENV}".encode())
        for file in sources.get(name, [_PINS / f"{name}.txt"]):
            digest.update(file.read_bytes())
        stamps.append(f"{name}-{digest.hexdigest()[:16]}")
    return stamps


def _install(layer: str, say: Say) -> None:
    if layer == "torch":
        say("installing torch (CPU build)")
        _pip(["--no-deps", "-r", str(_PINS / "torch.txt")],
             "the CPU build of torch is not where pip looks; point pip at PyTorch's CPU packages with "
             "PIP_EXTRA_INDEX_URL (or at a folder of wheels with PIP_FIND_LINKS) and run this again")
    elif layer == "own":
        say("installing flotilla")
        for target in ([str(_PINS / "vllm-metadata")], ["-e", str(ROOT)]):
            _pip(["--no-deps", "--no-build-isolation", *target], "flotilla itself could not be installed")
        for left in (_PINS / "vllm-metadata" / "build", *(_PINS / "vllm-metadata").glob("*.egg-info")):
            shutil.rmtree(left, ignore_errors=True)
    else:
        say("installing Ray, vLLM and the rest" if layer == "cpu" else "installing the tests' tools")
        _pip(["--no-deps", "--require-hashes", "-r", str(_PINS / f"{layer}.txt")],
             "a pinned package could not be installed")


def _pip(arguments: list[str], hint: str) -> None:
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*pip, *arguments], hint)


def _run(command: list[str], hint: str) -> None:
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    try:
        said, _ = child.communicate()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if child.returncode:
        tail = "\n".join(said.strip().splitlines()[-15:])
        raise SetupError(f"{hint}\n{tail}")


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One installer at a time; a second one waits and then finds the work done."""
    path = ROOT / ".flotilla" / "setup.lock"
    path.parent.mkdir(exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def environment() -> dict[str, str]:
    """The environment for programs of .venv."""
    return os.environ | {"PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}", "VIRTUAL_ENV": str(VENV)}
