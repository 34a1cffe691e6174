"""Makes small checkpoints and prints where each one is and its size."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.checkpoints import UnknownCheckpoint, families, make_all


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 for a family that has no recipe."""
    parser = argparse.ArgumentParser(prog="python -m serving.checkpoints", description=__doc__)
    parser.add_argument("family", nargs="+", help=f"one or more of: {', '.join(families())}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make them in")
    asked = parser.parse_args(arguments)
    try:
        made = make_all(asked.family, asked.out)
    except UnknownCheckpoint as error:
        print(error, file=sys.stderr)
        return 2
    for path in made.values():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print(f"{path}\t{size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
