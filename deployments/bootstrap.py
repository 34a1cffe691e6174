"""Makes .venv with everything Flotilla needs, or reuses it. Standard library only: it runs before anything is there.

Used by `deployments/demo` and `tests/run`; `python3 deployments/bootstrap.py [dev] [bench]` does the same by hand.
`bench` makes .venv-bench: the servers that `flotilla bench` holds Flotilla against. What is installed is pinned by hash
in `requirements/`; a stamp names the pins it was made from, so that a changed pin is installed and an interrupted
install is never taken for done.
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
BENCH_VENV = ROOT / ".venv-bench"
PYTHON = VENV / "bin" / "python"
_PINS = ROOT / "deployments" / "requirements"
Say = Callable[[str], None]


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def ensure(dev: bool, say: Say) -> bool:
    """Make sure .venv holds the pins (and the tests' tools with `dev`). Returns whether anything had to be done.

    Raises: SetupError.
    """
    return _make(VENV, ["torch", "cpu", "vision", "own"] + (["dev"] if dev else []), say)


def ensure_bench(say: Say) -> bool:
    """Make sure .venv-bench holds its pins. Returns whether anything had to be done. Raises: SetupError."""
    return _make(BENCH_VENV, ["bench"], say)


def _make(venv: Path, layers: list[str], say: Say) -> bool:
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs before any installer could check
        raise SetupError(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    with _lock():
        wanted = _wanted(venv, layers)
        stamp = venv / "flotilla-pins"
        have = stamp.read_text().split() if stamp.exists() else []
        if all(w in have for w in wanted):
            return False
        try:
            if not have or wanted[0] not in have:
                shutil.rmtree(venv, ignore_errors=True)
                say(f"making {venv.name}")
                _run([sys.executable, "-m", "venv", str(venv)],
                     "python3 -m venv failed; on Debian: apt-get install python3-venv")
                have = []
            for name, pin in zip(layers, wanted, strict=True):
                if pin not in have:
                    _install(venv, name, say)
                    have.append(pin)
            stamp.write_text("\n".join(have) + "\n")
        except BaseException:
            if not stamp.exists():
                say(f"removing the unfinished {venv.name}")
                shutil.rmtree(venv, ignore_errors=True)
            raise
    return True


def _wanted(venv: Path, layers: list[str]) -> list[str]:
    """A stamp per layer: its name and the hash of what it is made from."""
    sources = {"own": [ROOT / "pyproject.toml", _PINS / "vllm-metadata" / "pyproject.toml"]}
    stamps = []
    for name in layers:
        digest = hashlib.sha256(f"{sys.version_info[:2]} {venv}".encode())
        for file in sources.get(name, [_PINS / f"{name}.txt"]):
            digest.update(file.read_bytes())
        stamps.append(f"{name}-{digest.hexdigest()[:16]}")
    return stamps


_SAID = {"cpu": "installing Ray, vLLM and the rest", "vision": "installing torchvision",
         "dev": "installing the tests' tools", "bench": "installing the servers to compare with"}


def _install(venv: Path, layer: str, say: Say) -> None:
    if layer == "torch":
        say("installing torch (CPU build)")
        _pip(venv, ["--no-deps", "-r", str(_PINS / "torch.txt")],
             "the CPU build of torch is not where pip looks; point pip at PyTorch's CPU packages with "
             "PIP_EXTRA_INDEX_URL (or at a folder of wheels with PIP_FIND_LINKS) and run this again")
    elif layer == "own":
        say("installing flotilla")
        for target in ([str(_PINS / "vllm-metadata")], ["-e", str(ROOT)]):
            _pip(venv, ["--no-deps", "--no-build-isolation", *target], "flotilla itself could not be installed")
        for left in (_PINS / "vllm-metadata" / "build", *(_PINS / "vllm-metadata").glob("*.egg-info")):
            shutil.rmtree(left, ignore_errors=True)
    else:
        say(_SAID[layer])
        _pip(venv, ["--no-deps", "--require-hashes", "-r", str(_PINS / f"{layer}.txt")],
             "a pinned package could not be installed")
        if layer == "vision":
            empty_registrations(next((venv / "lib").glob("python3*/site-packages")))


# torchvision 0.28.0's file that describes its compiled operators to torch. They do not load beside a CPU torch, and
# then this file fails; transformers' pictures need none of them.
_REGISTRATIONS = "7c55fdb854bb38899949edfa4e68c7bd69190ea1fed4ae51bf593277661fcbc3"
_EMPTIED = "# Emptied by Flotilla: torchvision's compiled operators do not load beside a CPU build of torch.\n"


def empty_registrations(packages: Path) -> None:
    """Make torchvision importable beside a CPU torch. Reversible: reinstalling torchvision brings the file back.

    Raises: SetupError when the file is not the one that is known, so that nothing else is ever overwritten.
    """
    file = packages / "torchvision" / "_meta_registrations.py"
    text = file.read_bytes()
    if text == _EMPTIED.encode():
        return
    if hashlib.sha256(text).hexdigest() != _REGISTRATIONS:
        raise SetupError(f"{file} is not that of torchvision 0.28.0; see deployments/requirements/vision.txt")
    file.write_text(_EMPTIED)


def _pip(venv: Path, arguments: list[str], hint: str) -> None:
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
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


def main(arguments: list[str]) -> int:
    """Make the environments by hand. Returns the exit code."""
    if wrong := set(arguments) - {"dev", "bench"}:
        print(f"error: {sorted(wrong)[0]!r} is not known; there are: dev, bench", file=sys.stderr)
        return 2
    try:
        ensure("dev" in arguments, lambda note: print(f"… {note}", flush=True))
        if "bench" in arguments:
            ensure_bench(lambda note: print(f"… {note}", flush=True))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
