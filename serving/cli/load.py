"""`flotilla loadtest` and `flotilla report`: run a scenario against a fleet and price what it saw.

The load test itself is another program (`loadtests`, which knows nothing of serving); this hands it the fleet's facts
and the ledger's sums as files.
"""

from __future__ import annotations

import contextlib
import json as json_module
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import click
import psutil
import typer
from typer.core import TyperGroup

from serving import __version__, launch
from serving.cli import loadcluster
from serving.cli.cluster import Chart, Context, Namespace, Release
from serving.cli.output import settings
from serving.cli.render import CHART
from serving.cli.run import Json
from serving.costs.spread import overheads
from serving.economics import gather
from serving.errors import ConfigError
from serving.fleet.catalogue import Fleet, comparisons, price_book
from serving.fleet.money import usd
from serving.fleet.prices import Comparison
from serving.ledger import keys, sums
from serving.ledger.store import Ledger
from serving.plan import Changes, fleet
from serving.settings import Settings

SCENARIOS = Path("loadtests/scenarios")


def loadtest(
    scenario: Annotated[str, typer.Argument(help="A scenario's file, or its name in loadtests/scenarios.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the report; default: reports/<time>.")] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds, instead of the scenario's.", min=1)] = None,
    rate: Annotated[float | None, typer.Option(help="Arrivals/s, instead of the scenario's.", min=0.01)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the schedule, instead of the scenario's.")] = None,
    processes: Annotated[int, typer.Option(help="Worker processes of the load generator.", min=1)] = 1,
    interference: Annotated[bool, typer.Option("--interference", help="Each model alone, then the mix.")] = False,
    web: Annotated[str | None, typer.Option(help="HOST:PORT of Locust's interface, to watch.")] = None,
    json: Json = False,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="As a Job beside a release in a cluster.")] = False,
    kube_context: Context = None,
    namespace: Namespace = None,
    release: Release = "flotilla",
    chart: Chart = CHART,
    name: Annotated[str | None, typer.Option(help="In a cluster: the run's name; default: the scenario's and the time.",
                                             show_default=False)] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="In a cluster: only bring the report of the run --name home.")
                     ] = False,
) -> None:
    """Run a load test of the mix against the running fleet and write report.html and report.json.

    With --kubernetes it runs in the cluster, in the chart's Job; the report comes home and stays in the volume, too.
    Exits with 1 when the verdict is fail, with 3 when the run is invalid, 4 when nothing answered. What a run that was
    stopped had measured is kept.
    """
    own = settings()
    file = _scenario(scenario)
    if kubernetes:
        more = [part for key, value in (("--duration", duration), ("--rate", rate), ("--seed", seed))
                if value is not None for part in (key, str(value))] + (["--interference"] if interference else [])
        if web:
            raise ConfigError("--web shows a run on this machine; in a cluster forward the Job's port by kubectl")
        where = loadcluster.Where(kube_context, namespace, release, chart)
        return _in_cluster(own, file, where, name, fetch, more, processes, out, json)
    run = launch.current(own)
    target = out or own.reports_dir / time.strftime("%Y%m%d-%H%M%S")
    if target.exists():
        raise ConfigError(f"{target} is there already; choose another --out")
    draft = target.with_name(f".{target.name}.part")
    draft.mkdir(parents=True)
    command = [sys.executable, "-m", "loadtests.run", str(file), "--base-url", own.base_url or run.api]
    command += ["--out", str(draft), "--context", str(draft / "context.json")]
    for name, value in (("--duration", duration), ("--rate", rate), ("--seed", seed),
                        ("--processes", processes), ("--web", web)):
        command += [name, str(value)] if value is not None else []
    command += ["--interference"] if interference else []
    if not own.base_url:  # elsewhere is another fleet
        command += ["--metrics", run.metrics, "--engines", f"{run.metrics.removesuffix('/metrics')}/targets"]
    try:
        found = fleet(Path(run.fleet_file), Changes(run.sources))
        (draft / "context.json").write_text(json_module.dumps(context(found, Path(run.fleet_file)), indent=1))
        ledger = Ledger.open(own.database)
        with _Key(own, ledger, found) as key:
            began = time.time()
            before = sums.totals(ledger, began).models()
            code = _run([*command, *(["--quiet"] if json else [])], os.environ | {"FLOTILLA_API_KEY": key})
            # Whatever ended it early: what was measured until then is kept and reported, marked as what it is.
            if code and not (draft / "run.json").exists():
                raise typer.Exit(code)
            after = _settled(ledger)
        told = window(before, after, ledger) | {"break_even": break_even(ledger, found, Path(run.fleet_file), began)}
        (draft / "ledger.json").write_text(json_module.dumps(told, indent=1))
        reported = _run(_report(draft, json, "--shown-as", str(target)), os.environ)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    verdict = json_module.loads((target / "report.json").read_text())["verdict"]["result"]
    if reported or code or verdict != "pass":
        raise typer.Exit(reported or code or (3 if verdict == "invalid" else 1))


def _in_cluster(own: Settings, file: Path, where: loadcluster.Where, name: str | None, fetch: bool, more: list[str],
                workers: int, out: Path | None, json: bool) -> None:
    if fetch and not name:
        raise ConfigError("--fetch needs --name, the name that the run was given")
    called = name or f"{file.stem}-{time.strftime('%m%d-%H%M%S')}"[-30:].lstrip("-")
    target = out or own.reports_dir / called
    if target.exists():
        raise ConfigError(f"{target} is there already; choose another --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside, code = loadcluster.Beside(where), 0
    with tempfile.TemporaryDirectory() as folder:
        fleet_file = beside.fleet_files(Path(folder))
        found = fleet(fleet_file, Changes({}))
        told = json_module.dumps(context(found, fleet_file), indent=1)
        if fetch:
            beside.fetch(called, target)
        else:
            code = beside.run(file, called, [*(["--quiet"] if json else []), *more], workers, target,
                              next(iter(found.tenants)), own.api_key)
    if not (target / "run.json").exists():
        raise typer.Exit(code or 1)
    (target / "context.json").write_text(told)  # prices and objectives: what the Job did not know
    reported = _run(_report(target, json), os.environ)
    verdict = json_module.loads((target / "report.json").read_text())["verdict"]["result"]
    if reported or code or verdict != "pass":
        raise typer.Exit(reported or code or (3 if verdict == "invalid" else 1))


class _FolderOrCommand(TyperGroup):
    """`flotilla report DIR` is short for `flotilla report show DIR`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """With `show` where no command of the group is named."""
        if args and args[0] != "--help" and args[0] not in self.commands:
            args = ["show", *args]
        return super().parse_args(ctx, args)


report = typer.Typer(cls=_FolderOrCommand, no_args_is_help=True, help="Load-test reports: `flotilla report DIR` makes "
                     "one anew from its raw records, `compare` holds two runs against each other.")


@report.command("show")
def show(folder: Annotated[Path, typer.Argument(help="A report's folder.")], json: Json = False) -> None:
    """Make a report anew from its raw records and print its summary; `flotilla report DIR` for short.

    Writes report.html, report.json, report.csv, report.md and report.xml (JUnit) into the folder.
    """
    code = _run(_report(folder, json), os.environ)
    if code:
        raise typer.Exit(code)


@report.command("compare")
def compare(
    base: Annotated[Path, typer.Argument(help="Folder of the run to compare with.")],
    new: Annotated[Path, typer.Argument(help="Folder of the run that is judged.")],
    threshold: Annotated[list[str] | None, typer.Option(help="FIGURE=SHARE, how much worse a figure may be, such as "
                                                        "ttft_p95=0.2; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write compare.json, .md and .xml (JUnit) there.")] = None,
    json: Json = False,
) -> None:
    """Has anything surely become worse, by more than its threshold? Exits with 1 if so.

    The chance of any false alarm among all figures is at most 5%. Exits with 3 when one of the runs is invalid.
    """
    command = [sys.executable, "-m", "loadtests.report.compare", str(base), str(new)]
    for given in threshold or ():
        command += ["--threshold", given]
    command += [*(["--out", str(out)] if out else []), *(["--json"] if json else [])]
    code = _run(command, os.environ)
    if code:
        raise typer.Exit(code)


def context(found: Fleet, file: Path) -> dict[str, Any]:
    """What the report needs to know of the fleet, as JSON."""
    book, now = price_book(found, file), time.time()

    def comparator(to: Comparison) -> dict[str, Any]:
        # per token of ours: the other tokenizer's count and batch prices are in it
        return {"name": to.name, "role": to.role, "input_usd_per_mtok": float(to.input * 1_000_000),
                "cached_input_usd_per_mtok": float(to.cached_input * 1_000_000),
                "output_usd_per_mtok": float(to.output * 1_000_000), "batch": to.batch,
                "token_ratio": float(to.token_ratio), "token_ratio_source": to.token_ratio_source}

    def price(name: str) -> float | None:
        """USD per replica and hour now; None where it depends on the node."""
        node = found.accelerators[found.models[name].accelerator].needs_labels
        return None if node else usd(found.price_nanousd_per_hour(name, now))

    return {
        "fleet": {"name": found.name, "file": file.name},
        "price_book": {"version": book.version, "origin": book.origin},
        "versions": _versions(), "commit": _commit(), "machine": _machine(),
        "models": {
            name: {
                "source": m.source, "architecture": m.architecture, "accelerator": m.accelerator,
                "price_usd_per_hour": price(name), "slo": m.slo.model_dump(),
                "random_weights": m.small_family is not None,
                "comparators": [comparator(c) for c in comparisons(found, name, book)],
            }
            for name, m in found.models.items()
        },
    }


def window(before: dict[str, sums.ModelSums], after: dict[str, sums.ModelSums], ledger: Ledger) -> dict[str, Any]:
    """What the ledger metered between two moments, as JSON. Work still running counts as direct; what serves no single
    model is spread over them by their bills."""
    none, models = sums.ModelSums(""), {}
    shared = after.get("", none).nanousd["overhead"] - before.get("", none).nanousd["overhead"]
    for name, end in after.items():
        if not name:
            continue
        start = before.get(name, sums.ModelSums(name))
        nanousd = {bucket: end.nanousd[bucket] - start.nanousd[bucket] for bucket in end.nanousd}
        nanousd["direct"] += end.running_nanousd - start.running_nanousd
        models[name] = {"requests": end.requests - start.requests, "nanousd": nanousd,
                        "tokens": asdict(end.tokens - start.tokens)}
    bills = {name: sum(m["nanousd"].values()) for name, m in models.items()}
    for name, part in overheads(bills | {"": shared}).items():
        models[name]["nanousd"]["overhead"] += part
    return {"models": models, "residual_nanousd": sums.reconcile(ledger).residual_nanousd}


def break_even(ledger: Ledger, found: Fleet, file: Path, since: float) -> dict[str, Any]:
    """From which utilisation on each model is cheaper than each API, by the traffic since a moment, as JSON."""
    told = {}
    for one in gather(ledger, found, price_book(found, file), time.time(), since):
        even = one.even
        told[one.model] = {"missing": one.missing} if even is None else {
            "price_usd_per_hour": even.price_usd_per_hour, "overhead_factor": even.overhead,
            "capacity_per_s": even.capacity_per_s, "utilisation": even.utilisation, "saving": even.saving,
            "against": [{"name": a.name, "role": a.role, "usd_per_request": a.usd_per_request,
                         "breakeven": a.breakeven, "for_saving": a.for_saving} for a in even.against],
        }
    return told


def _versions() -> dict[str, str]:
    """Of what serves; what is not installed is left out."""
    found = {"flotilla": __version__}
    for name in ("vllm", "ray", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _commit() -> str:
    """The commit of the source tree this runs from, marked where it was changed; empty without one."""
    here = Path(__file__).parent
    try:
        said = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=here,
                              capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""


def _machine() -> dict[str, Any]:
    """This machine: the fleet's too, where it runs on one."""
    processor = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    return {"system": f"{platform.system()} {platform.release()}", "processor": processor,
            "cores": psutil.cpu_count(), "memory_gib": psutil.virtual_memory().total / 2**30}


def _settled(ledger: Ledger, wait_s: float = 10.0) -> dict[str, sums.ModelSums]:
    """The totals once every replica has written after this moment and nothing runs any more."""
    since, deadline = time.time(), time.monotonic() + wait_s
    while True:
        found = sums.totals(ledger, time.time())
        written = all(r.record.seen_at > since for r in found.replicas if r.alive)
        if (written and not any(found.running.values())) or time.monotonic() > deadline:
            return found.models()
        time.sleep(0.1)


class _Key:
    """The key of the settings, or one made for this load test and revoked after it."""

    def __init__(self, own: Settings, ledger: Ledger, found: Fleet) -> None:
        self._own, self._ledger, self._tenant = own, ledger, next(iter(found.tenants))
        self._made: str | None = None

    def __enter__(self) -> str:
        if self._own.api_key:
            return self._own.api_key
        text, key = keys.create(self._ledger, self._tenant, "load test", self._own.pepper(), time.time())
        self._made = key.key_id
        return text

    def __exit__(self, *_: object) -> None:
        if self._made:
            keys.revoke(self._ledger, self._made, time.time())


def _report(folder: Path, json: bool, *more: str) -> list[str]:
    return [sys.executable, "-m", "loadtests.report", str(folder), *(["--json"] if json else []), *more]


def _scenario(name: str) -> Path:
    for path in (Path(name), SCENARIOS / f"{name}.yaml"):
        if path.is_file():
            return path
    there = ", ".join(sorted(p.stem for p in SCENARIOS.glob("*.yaml"))) or "none found here"
    raise ConfigError(f"no scenario {name!r}; in {SCENARIOS} there are: {there}")


def _run(command: list[str], environment: dict[str, str] | os._Environ[str]) -> int:
    """Run a child to its end; on Ctrl-C it gets the signal as well and is waited for."""
    child = subprocess.Popen(command, env=dict(environment))
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
