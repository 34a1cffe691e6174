"""The Helm that is installed here: `render manifests` and the tests let it render the chart; nothing imitates it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.errors import ConfigError, FlotillaError

_SECONDS = 120


def binary() -> str:
    """Its path: the one beside this Python, or on the PATH. Raises: ConfigError when there is none."""
    beside = Path(sys.executable).with_name("helm")
    found = str(beside) if beside.exists() else shutil.which("helm")
    if found is None:
        raise ConfigError("helm is not installed here; install Helm 3.14 or newer, or use `flotilla render values` and "
                          "run helm elsewhere")
    return found


def run(arguments: Sequence[str], given: str = "") -> str:
    """What helm prints. `given`: its standard input. Raises: FlotillaError with helm's own words."""
    try:
        done = subprocess.run([binary(), *arguments], input=given, capture_output=True, text=True, timeout=_SECONDS,
                              check=False)
    except subprocess.TimeoutExpired as error:
        raise FlotillaError(f"helm {arguments[0]} did not end within {_SECONDS} s") from error
    if done.returncode:
        said = done.stderr.strip().removeprefix("Error: ")
        raise FlotillaError(f"helm {arguments[0]}: {said}")
    return done.stdout


def template(chart: Path, release: str, namespace: str, files: Sequence[Path], values: str,
             api_versions: Sequence[str] = (), kube_version: str | None = None, only: str = "") -> str:
    """The chart rendered, as YAML documents. `values`: text that goes under `files`; `only`: one template of it.

    Raises: ConfigError, FlotillaError.
    """
    if not (chart / "Chart.yaml").is_file():
        raise ConfigError(f"{chart} is no chart: it has no Chart.yaml; say where Flotilla's chart is with --chart")
    command = ["template", release, str(chart), "--namespace", namespace, "--values", "-"]
    for file in files:
        command += ["--values", str(file)]
    for version in api_versions:
        command += ["--api-versions", version]
    if kube_version:
        command += ["--kube-version", kube_version]
    if only:
        command += ["--show-only", only]
    return run(command, values)
