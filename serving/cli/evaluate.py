"""`flotilla simulate --evaluate`: autoscaling policies beside each other, on a folder of traces and on made spikes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.cli import simulated
from serving.cli.output import as_json, console, stderr, table
from serving.fleet.catalogue import Fleet

if TYPE_CHECKING:
    from serving.simulator.evaluation import Case, Judged, Result, Verdict

EXCERPTS = Path("loadtests/data")
Rows = list[dict[str, Any]]
_NAMES = {"conv": "azure-conv", "code": "azure-code", "mooncake": "mooncake", "servegen": "servegen"}
_SERVEGEN_S, _SPIKES_S, _SPIKES_RATE = 10_800.0, 7_200.0, 10.0
_SHORTEST_S, _FEWEST = 600.0, 1_000  # of a trace that has two halves to speak of


def evaluate(path: Path, found: Fleet, folder: Path, profiles: Path | None, model: str | None, replicas: float,
             node_s: float, seed: int, quick: bool, jobs: int, json: bool) -> None:
    """Tune each policy on a trace's first half, tell what it did on the second. Raises: ConfigError."""
    from serving.simulator import evaluation

    simulated.compile_once()
    known = simulated.read_profiles(profiles)
    cases: list[Case] = []
    skipped: dict[str, str] = {}
    # a process for each core that may be used, each with a trace at a time; numba's threads do not survive a fork
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        waited = []
        for name, source, rows in traces(folder, seed, skipped):
            cases.append(_case(path, found, known, name, source, rows, model, replicas, node_s, seed))
            policies = evaluation.rules(cases[-1].service.profiles[0].max_num_seqs, quick)
            waited.append(pool.submit(evaluation.judge, cases[-1], policies, cases[-1].service.policy.slo.goodput, seed,
                                      None))
        verdicts: dict[str, Verdict] = {}
        for case, one in zip(cases, waited, strict=True):
            verdicts[case.name] = one.result()
            stderr.print(f"… {len(verdicts)} of {len(cases)} traces: {case.name}", highlight=False)
    told = {"fleet": found.name, "traces_from": str(folder), "seed": seed, "quick": quick, "replicas": replicas,
            "node_s": node_s, "traces": {c.name: _told(c, verdicts[c.name]) for c in cases}, "skipped": skipped,
            "summary": evaluation.summary(verdicts)}
    if json:
        as_json(told)
    else:
        show(told)


def traces(folder: Path, seed: int, skipped: dict[str, str]) -> Iterator[tuple[str, str, Rows | None]]:
    """(name, source, rows) of each trace of a folder that is long enough, and of the made spikes with no rows."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix not in (".csv", ".jsonl") and not (file.is_dir() and any(file.glob("chunk-*-trace.csv"))):
            continue
        name = next((full for part, full in _NAMES.items() if part in file.name.lower()), file.stem)
        rows = simulated.rows_of(file, seed, _SERVEGEN_S)
        length = rows[-1]["at_s"] - rows[0]["at_s"] if rows else 0.0
        if length < _SHORTEST_S or len(rows) < _FEWEST:
            skipped[name] = (f"{file}: {len(rows):,} requests in {length:,.0f} s are too few to tune on one half and "
                             "to tell of the other; name a folder with the whole trace by --traces")
            continue
        yield name, str(file), rows
    yield "spikes", "made", None


def _case(path: Path, found: Fleet, known: Any, name: str, source: str, rows: Rows | None, model: str | None,
          replicas: float, node_s: float, seed: int) -> Case:
    from serving.fleet.autoscaling.slo import SloRule
    from serving.simulator import evaluation
    from serving.simulator.traffic import repeated

    own = found.callable_names().get(name, model or next(iter(found.models)))
    profile = simulated.profile_of(found, path, own, known)
    service = simulated.service(found, own, {own: profile}, SloRule(), node_s)
    if rows is None:
        asked = evaluation.spikes(_SPIKES_S, _SPIKES_RATE, seed)
    else:
        first = rows[0]["at_s"]
        rows = [row | {"at_s": row["at_s"] - first} for row in rows]
        asked = simulated.as_traffic(rows, rows[-1]["at_s"] + 1.0)
    copies = evaluation.copies_for(service, asked, replicas)
    return evaluation.Case(name, service, repeated(asked, copies, seed), copies, source)


def _told(case: Case, verdict: Verdict) -> dict[str, Any]:
    service = case.service
    return {
        "source": case.source, "model": service.name, "copies": case.copies, "length_s": case.traffic.length_s,
        "objective": service.policy.slo.goodput,
        "slo": {"ttft_ms": service.policy.slo.ttft_ms, "tpot_ms": service.policy.slo.tpot_ms},
        "start_s": service.profiles[0].start_s, "profile": service.profiles[0].origin,
        "best_default": verdict.best, "gpu_hours_saved": verdict.saved,
        "ours_at_equal_or_better": None if verdict.matched is None else _result(verdict.matched, True),
        "foreseen": None if verdict.foreseen is None else _result(verdict.foreseen, True),
        "policies": {name: _judged(one) for name, one in verdict.judged.items()}}


def _judged(one: Judged) -> dict[str, Any]:
    return {"tried": len(one.tried), "setting": one.told.setting, "tuned": _result(one.tuned, False),
            "reported": _result(one.told, False)}


def _result(of: Result, setting: bool) -> dict[str, Any]:
    found = {name: value for name, value in asdict(of).items() if name != "rule"}
    return found | ({"setting": of.setting} if setting else {})


def show(told: dict[str, Any]) -> None:
    """The evaluation as a table."""
    rows, found = [], told["summary"]
    for name, trace in told["traces"].items():
        at_most = found["foreseen"]["by_trace"][name]
        for policy, one in trace["policies"].items():
            mark = " *" if policy == trace["best_default"] else ""
            rows.append((name, policy + mark, share(one["tuned"]["attainment"]), f"{one['tuned']['gpu_hours']:.2f}",
                         share(one["reported"]["attainment"]), f"{one['reported']['gpu_hours']:.2f}",
                         share(trace["gpu_hours_saved"]) if policy == "ours" else ""))
            name = ""
        if (known := trace["foreseen"]) is not None:
            rows.append(("", "foreseen", "", "", share(known["attainment"]), f"{known['gpu_hours']:.2f}",
                         share(at_most)))
    table(["trace", "policy", "tuned on:\nkept all>", "GPU-h>", "told on:\nkept all>", "GPU-h>", "saved>"], rows)
    console.print(f"{share(found['gpu_hours_saved'])} of the GPU-hours of each trace's best other policy (*) saved "
                  f"({found['gpu_hours']['ours']:.1f} for {found['gpu_hours']['best_default']:.1f}); the goal is "
                  f"{found['goal']:.0%}" + ("" if found["at_equal_or_better_attainment"] else
                                            "; where no figure stands, no setting of ours kept as much"),
                  highlight=False, soft_wrap=True)
    alone = [f"{name} {share(one['gpu_hours_saved'])}" + ("" if one["at_equal_or_better_attainment"] else
                                                          " (not at equal attainment everywhere)")
             for name, one in found["against"].items()]
    console.print(f"against each of the others alone: {', '.join(alone)}", highlight=False, soft_wrap=True)
    console.print(f"foreseen: who knows the second half beforehand saved {share(found['foreseen']['gpu_hours_saved'])} "
                  "of the best others' GPU-hours at equal or better attainment", highlight=False, soft_wrap=True)
    for name, why in told["skipped"].items():
        console.print(f"[yellow]left out[/]  {name}: {why}", highlight=False, soft_wrap=True)


def share(value: float | None) -> str:
    """A share for people."""
    return "–" if value is None else f"{value:.1%}"
