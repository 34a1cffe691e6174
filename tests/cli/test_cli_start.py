"""Commands that ask no cluster, database server or engine begin without their clients: those take longer to import than
the commands to run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("kubernetes", "redis", "requests", "opentelemetry", "cryptography", "numpy", "numba", "pandas", "pyarrow",
         "ray", "vllm", "torch", "aiohttp", "fastapi", "locust", "gevent", "psycopg", "alembic")
ASKED = f"""
import sys
from serving.cli.main import app
for words in (["--help"], ["check", "deployments/fleets/laptop.yaml"], ["models", "deployments/fleets/laptop.yaml"]):
    app(words, standalone_mode=False)
print("imported:", *(name for name in {HEAVY!r} if name in sys.modules))
"""


def test_help_check_and_models_import_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", ASKED], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"
