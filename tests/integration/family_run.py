"""Serves every family live, checks each through the whole product, and shows a table: the work of `./tests/families`.

Some families at a time share a fleet; each fleet is started, asked and stopped by the real command line. Ends with 1
when a check failed or a family did not come up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]
import hearing  # noqa: E402
from family_cases import CASES, CHECKS, NOT_HERE, Case  # noqa: E402
from family_checks import Asked, run  # noqa: E402
from live_calls import Caller  # noqa: E402
from live_fleet import LAPTOP, LiveFleet, no_interrupts  # noqa: E402

from serving.checkpoints import CheckpointError, vocabularies  # noqa: E402

TENANT = "families"
MARKS = {"ok": "[green]ok[/]", "failed": "[bold red]failed[/]", "not here": "[yellow]not here[/]", "": "[dim]–[/]"}
Result = dict[str, dict[str, str]]  # check: {"state": a key of MARKS, "why": …}
console = Console(width=None if sys.stdout.isatty() else 150)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 when something failed that should hold."""
    names = [case.family for case in CASES]
    parser = argparse.ArgumentParser(prog="./tests/families", description=__doc__.splitlines()[0])
    parser.add_argument("family", nargs="*", help=f"only these; there are: {', '.join(names)}")
    parser.add_argument("--at-once", type=int, default=4, metavar="N", help="families that share a fleet (default 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    asked = parser.parse_args(arguments)
    if wrong := [name for name in asked.family if name not in names]:
        parser.error(f"no family {wrong[0]!r}; there are: {', '.join(names)}")
    chosen = [case for case in CASES if not asked.family or case.family in asked.family]
    began = time.monotonic()
    results: dict[str, Result] = {}
    here = [case for case in chosen if _is_here(case, results)]
    for group in _groups(here, asked.at_once):
        results |= _serve(group)
    took = time.monotonic() - began
    rows = {case.family: results[case.family] for case in chosen}
    if not asked.family:
        rows |= {name: {c: {"state": "not here", "why": why} for c in ("chat",)} for name, why in NOT_HERE.items()}
    _show(rows)
    count = sum(cell["state"] == "ok" for row in rows.values() for cell in row.values())
    failed = sum(cell["state"] == "failed" for row in rows.values() for cell in row.values())
    console.print(f"{count} checks held, {failed} failed, {took:.0f} s", highlight=False)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps({"seconds": round(took), "families": rows}, indent=1) + "\n")
    return 1 if failed else 0


def _groups(cases: list[Case], size: int) -> Iterator[list[Case]]:
    for at in range(0, len(cases), max(1, size)):
        yield cases[at:at + max(1, size)]


def _is_here(case: Case, results: dict[str, Result]) -> bool:
    """Whether what its checkpoint is made from is on this machine; if not, its row says so."""
    if case.family != "gpt-oss":
        return True
    try:
        vocabularies.found()
    except CheckpointError as error:
        results[case.family] = _all(case, "not here", str(error))
        return False
    return True


def _serve(cases: list[Case]) -> dict[str, Result]:
    """Start a fleet of these families, check each, and stop it."""
    with tempfile.TemporaryDirectory(prefix="flotilla-families-") as folder:
        live = LiveFleet(Path(folder) / "state", _fleet_file(Path(folder), cases))
        console.print(f"starting {', '.join(case.family for case in cases)} …", highlight=False)
        try:
            live.start()
            caller = Caller(live.port, live.new_key(TENANT))
            down = {failure.model: failure.message for failure in live.state.failures}
            return {case.family: _all(case, "failed", f"did not come up: {down[case.family]}")
                    if case.family in down else _check(live, caller, case) for case in cases}
        except RuntimeError as error:
            console.print(str(error), markup=False, highlight=False)
            return {case.family: _all(case, "failed", str(error).splitlines()[0]) for case in cases}
        finally:
            with no_interrupts():
                live.run("down", timeout_s=120)


def _check(live: LiveFleet, caller: Caller, case: Case) -> Result:
    found: Result = {}
    for check in case.checks:
        why = run(Asked(live, caller, case.family, case), check)
        found[check] = {"state": "failed" if why else "ok", "why": why}
        if why:
            console.print(f"  {case.family} {check}: {why}", markup=False, highlight=False)
    console.print(f"  {case.family}: {sum(c['state'] == 'ok' for c in found.values())} of {len(found)} checks hold",
                  highlight=False)
    return found | {check: {"state": "not here", "why": why} for check, why in case.lacks.items()}


def _all(case: Case, state: str, why: str) -> Result:
    return {check: {"state": state, "why": why} for check in case.checks}


def _fleet_file(folder: Path, cases: list[Case]) -> Path:
    """The laptop's fleet file with a model for each family."""
    laptop = yaml.safe_load(LAPTOP.read_text())
    small = laptop["models"]["llama"]["engine"]
    fleet = {
        "name": "families", "prices": str((LAPTOP.parent / laptop["prices"]).resolve()),
        "accelerators": laptop["accelerators"], "tenants": {TENANT: {}},
        "models": {case.family: {
            "source": str(hearing.make(folder / case.family)) if case.kind == "hear" else f"small:{case.family}",
            "architecture": case.architecture,
            "accelerator": next(iter(laptop["accelerators"])), "slo": {"ttft_ms": 30_000, "tpot_ms": 2_000},
            "engine": _engine(case, small),
        } for case in cases},
    }
    file = folder / "fleet.yaml"
    file.write_text(yaml.safe_dump(fleet, sort_keys=False))
    return file


def _engine(case: Case, small: dict[str, Any]) -> dict[str, Any]:
    args = dict(small["args"])
    if case.kind != "chat":
        del args["structured_outputs_config"]
    length = case.context or small["max_model_len"]
    return {**small, "kv_cache_mib": 64, "max_model_len": length, "tool_call_parser": case.tool_parser,
            "reasoning_parser": case.reasoning_parser, "args": args | dict(case.args)}


def _show(rows: dict[str, Result]) -> None:
    """Families down, checks across, and below it why something failed or is not here."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("family", no_wrap=True)
    for check in CHECKS:
        shown.add_column(check, no_wrap=True)
    reasons: dict[str, list[str]] = {}
    for family, row in rows.items():
        shown.add_row(family, *(MARKS[row.get(check, {"state": ""})["state"]] for check in CHECKS))
        for check, cell in row.items():
            if cell["why"]:
                reasons.setdefault(f"{cell['state']}: {cell['why']}", []).append(
                    family if family in NOT_HERE or len({c["why"] for c in row.values()}) == 1 else f"{family} {check}")
    console.print()
    console.print(shown)
    console.print()
    for why, where in reasons.items():
        console.print(f"{', '.join(dict.fromkeys(where))}: {why}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
