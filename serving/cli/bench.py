"""`flotilla bench`: how fast Flotilla is on this machine, beside bare vLLM and other servers."""

from __future__ import annotations

import contextlib
import json as json_module
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.bench import admission, arms, fairness, gateway, kv, metering, observing, relay, routing
from serving.bench.figures import QUIET
from serving.cli.output import as_json, console, settings, stderr, table
from serving.cli.run import Json

app = typer.Typer(no_args_is_help=True, help="Measure Flotilla beside bare vLLM and other servers on this machine.")
Rounds = Annotated[int, typer.Option(help="How often everything is measured.", min=1)]
Peers = Annotated[Path, typer.Option(help="Environment of the other servers; `python3 deployments/bootstrap.py bench` "
                                          "makes it.")]


@app.command("gateway")
def gateway_(
    arm: Annotated[list[str] | None, typer.Option("--arm", help=f"Only this and {arms.BASE}; may be repeated. "
                                                  f"There are: {', '.join(arms.ARMS)}.")] = None,
    streams: Annotated[list[int] | None, typer.Option("--streams", help="Streams at once; may be repeated.",
                                                      min=1)] = None,
    rounds: Rounds = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Only Flotilla and bare vLLM at 32 streams.")] = False,
    peers: Peers = Path(".venv-bench"),
    json: Json = False,
) -> None:
    """Tokens per second, time to first token and CPU beside bare `vllm serve`, with the same model and client.

    Writes bench-gateway.json into the folder of reports.
    """
    own = settings()
    names = ["flotilla"] if quick and not arm else list(arm or [])
    levels = tuple(streams or ([32] if quick else list(gateway.REQUESTS)))
    plan = gateway.Plan(tuple(arms.chosen(names)), levels, rounds, own.state_dir, peers)
    with progress(json) as say:
        report = gateway.measure(plan, say)
    written("gateway", report, json, show_gateway)


@app.command("relay")
def relay_(
    arm: Annotated[list[str] | None, typer.Option("--arm", help=f"Only this; may be repeated. There are: "
                                                  f"{', '.join(relay.STARTERS)}.")] = None,
    rounds: Rounds = 3,
    requests: Annotated[int, typer.Option(help="Whole answers per round.", min=100)] = 20_000,
    memory: Annotated[int, typer.Option(help="Requests while the gateway's memory is watched; 0: none.",
                                        min=0)] = 100_000,
    peers: Peers = Path(".venv-bench"),
    json: Json = False,
) -> None:
    """What one core of the gateway carries before an engine that costs nothing, beside other servers.

    Writes bench-relay.json into the folder of reports.
    """
    own = settings()
    names = relay.chosen(arm or [])
    plan = relay.RelayPlan(tuple(names), rounds, requests, memory, own.state_dir, peers)
    with progress(json) as say:
        report = relay.measure(plan, say)
    written("relay", report, json, show_relay)


def show_relay(report: dict[str, Any]) -> None:
    """The report as tables."""
    table(["server", "req/s>", "req per\ncore s>", "chunks/s,\npaced>", "per\ncore s>", "chunks/s,\nflat out>",
           "per\ncore s>"], [(
        r["name"], f"{r['requests']['requests_per_s']:,.0f}", f"{r['requests']['requests_per_core_s']:,.0f}",
        f"{r['paced_chunks']['chunks_per_s']:,.0f}", f"{r['paced_chunks']['chunks_per_core_s']:,.0f}",
        f"{r['chunks']['chunks_per_s']:,.0f}", f"{r['chunks']['chunks_per_core_s']:,.0f}") for r in report["arms"]])
    load = report["load"]
    console.print(f"paced: {load['paced_streams']} streams that get a chunk each every {load['paced_us'] / 1000:g} ms, "
                  "as from an engine. flat out: as fast as they are taken, many to a read. req/s: whole answers.",
                  highlight=False, soft_wrap=True)
    for row in report["arms"]:
        if "memory" in row:
            seen = row["memory"]
            console.print(f"memory of {row['name']} over {seen['requests']:,} requests, MiB: "
                          f"{' '.join(f'{v:g}' for v in seen['rss_mib'])}", highlight=False, soft_wrap=True)
    _failed(report)


@app.command("observing")
def observing_(
    arm: Annotated[list[str] | None, typer.Option("--arm", help=f"Only this and {observing.PLAIN}; may be repeated. "
                                                  f"There are: {', '.join(observing.ARMS)}.")] = None,
    rounds: Rounds = 12,
    requests: Annotated[int, typer.Option(help="Whole answers per round.", min=100)] = 8_000,
    json: Json = False,
) -> None:
    """What tracing, logging, scraping and open consoles take from a gateway.

    Writes bench-observing.json into the folder of reports.
    """
    own = settings()
    arms.known(arm or [], observing.ARMS)
    names = tuple(n for n in observing.ARMS if not arm or n in arm or n == observing.PLAIN)
    with progress(json) as say:
        report = observing.measure(observing.ObservingPlan(names, rounds, requests, own.state_dir), say)
    written("observing", report, json, show_observing)


def show_observing(report: dict[str, Any]) -> None:
    """The report as a table."""

    def cells(of: dict[str, Any]) -> tuple[str, str, str]:
        low, high = of["interval_95"]
        return f"{of['median']:,.0f}", f"{of['ratio']:.3f}", f"{low:.3f}–{high:.3f}"

    table(["gateway", "requests per\ncore s>", "of\nplain>", "95%\ninterval>", "chunks per\ncore s>", "of\nplain>",
           "95%\ninterval>", "within\n1%>"],
          [(r["name"], *cells(r["requests"]), *cells(r["chunks"]), "yes" if observing.within(r) else "no")
           for r in report["arms"]], title=f"{report['rounds']} rounds, each beside the plain gateway of its round")
    for row in report["arms"]:
        console.print(f"{row['name']}: {row['says']}", style="dim", highlight=False)
    most = report["arms"][0]["requests"]["median"]
    for form, own in report["access_log"].items():
        console.print(f"the access log ({form}) by itself: {own['request_us']:.2f} µs of a request, "
                      f"{own['line_us']:.2f} µs of its line; at {most:,.0f} requests a second "
                      f"{observing.share(own, most):.2%} of a core", highlight=False, soft_wrap=True)


@app.command("metering")
def metering_(
    rounds: Annotated[int, typer.Option(help=f"Of {metering.TURNS} turns of each scheduler.", min=1)] = 5,
    running: Annotated[int, typer.Option(help="Requests that decode together.", min=1, max=1024)] = 64,
    json: Json = False,
) -> None:
    """What metering takes from each engine step, beside vLLM's own scheduler, and the replica's books from theirs.

    Writes bench-metering.json into the folder of reports.
    """
    own = settings()
    with progress(json) as say:
        report = metering.measure(metering.MeteringPlan(rounds, running, own.state_dir), say)
    written("metering", report, json, show_metering)


def show_metering(report: dict[str, Any]) -> None:
    """The report as tables, and in words which of its figures answers."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    load, share, ratio = report["load"], report["own_share"], report["ratio"]
    rows = [(arm, of, report["step_cpu_us"][arm]) for arm, of in report["step_us"].items()]
    rows.append(("metering's code", report["own_us"], report["own_cpu_us"]))
    table(["µs of a\nstep under", "p50>", "mean>", "p99>", "of CPU:\np50>", "mean>", "p99>"],
          [(name, *(f"{of[k]:,.1f}" for of in two for k in ("p50", "mean", "p99"))) for name, *two in rows],
          title=f"{load['running']} requests that decode together, {load['turns']} turns")
    console.print()
    table(["ratio of steps\nin one turn", "p50>", "95%\ninterval>", "of CPU:\np50>", "95%\ninterval>", "all turns>"],
          [(name, *_with_interval(of["p50"]), *_with_interval(of["cpu_p50"]),
            "–".join(f"{v:.3f}" for v in of["cpu_p50"]["turns"])) for name, of in ratio.items()])
    console.print()
    verdict = "[green]within[/]" if share["cpu"] <= report["limit"] else "[red]above[/]"
    say(f"Metering's own code takes [bold]{share['cpu']:.2%}[/] of the engine's time, {verdict} the "
        f"{report['limit']:.0%} it may. This figure answers: its CPU over the CPU of the rest of the same steps. "
        f"By the clock, of one step: p50 {share['p50']:.2%}, p99 {share['p99']:.2%}.")
    if report["contradicted"]:
        say("[red]The ratio of CPU says more:[/] metering slows down the rest of a step too, beyond the limit.")
    else:
        say("The ratios hold all that metering does to a step, and the noise; that of CPU does not say otherwise.")
    say("At the same cost, of a GPU's step: " + ", ".join(
        f"{gpu['own_share']:.2%} of {gpu['step_ms']:g} ms" for gpu in report["gpu_steps"])
        + "; there the scheduler works on the next step while the GPU computes this one.")
    books, fast = report["books_us"], report["gpu_steps"][0]
    say(f"The replica's books, in the process that answers HTTP: {books['p50']:.0f} µs to book a step (p99 "
        f"{books['p99']:.0f}), {books['cpu_per_step']:.0f} of CPU with reading and all else, {fast['books_cores']:.1%} "
        f"of a core at steps of {fast['step_ms']:g} ms.")
    _noisy(report["others_cores"])


def _with_interval(figure: dict[str, Any]) -> tuple[str, str]:
    return f"{figure['median']:.3f}", "–".join(f"{v:.3f}" for v in figure["interval_95"])


@app.command("routing")
def routing_(
    policy: Annotated[list[str] | None, typer.Option("--policy", help=f"Only this; may be repeated. There are: "
                                                     f"{', '.join(routing.POLICIES)}.")] = None,
    rounds: Rounds = 1,
    seed: Annotated[int, typer.Option(help="Of the conversations.")] = 1,
    json: Json = False,
) -> None:
    """Prefix-cache hits of multi-turn conversations over two replicas under each routing policy.

    Writes bench-routing.json into the folder of reports.
    """
    own = settings()
    plan = routing.RoutingPlan(routing.chosen(policy or []), rounds, seed, own.state_dir)
    with progress(json) as say:
        report = routing.measure(plan, say)
    written("routing", report, json, show_routing)


def show_routing(report: dict[str, Any]) -> None:
    """The report as a table."""
    table(["routing", "cache\nhits>", "cached, by\nusage>", "TTFT\np50 ms>", "at the busier\nreplica>"],
          [(r["policy"], f"{r['hit_rate']:.1%}", f"{r['cached_share']:.1%}", f"{r['ttft_p50_ms']:.1f}",
            f"{r['busiest_share']:.1%}") for r in report["policies"]])


@app.command("admission")
def admission_(
    store: Annotated[list[str] | None, typer.Option("--store", help=f"Only this; may be repeated. There are: "
                                                    f"{', '.join(admission.STORES)}.")] = None,
    rounds: Rounds = 3,
    requests: Annotated[int, typer.Option(help="Of each round.", min=100)] = 4_000,
    json: Json = False,
) -> None:
    """What limits add to a request: counted in the gateway, in the fleet's own process, and in Redis.

    Redis is that of FLOTILLA_QUOTA_URL, or a redis-server started for this. Writes bench-admission.json into the folder
    of reports.
    """
    own = settings()
    plan = admission.AdmissionPlan(admission.chosen(store or []), requests, rounds=rounds, redis=own.quota_url)
    with progress(json) as say:
        report = admission.measure(plan, say)
    written("admission", report, json, show_admission)


def show_admission(report: dict[str, Any]) -> None:
    """The report as a table."""
    table(["counted in", "at once>", "ms p50>", "low–high>", "p90>", "p99>", "may be>"], [(
        r["store"], r["together"], f"{r['p50_ms']:.3f}", "–".join(f"{v:.3f}" for v in r["spread_p50_ms"]),
        f"{r['p90_ms']:.3f}", f"{r['p99_ms']:.3f}",
        "" if "within" not in r else f"{report['target_ms'][r['store']]:g} "
        + ("[green]held[/]" if r["within"] else "[red]missed[/]")) for r in report["stores"]])
    console.print(f"{report['counters']} limits of a tenant and its key on every request, reserved together. "
                  "At once: requests that ask the same gateway at the same moment.", highlight=False, soft_wrap=True)
    _failed(report)


@app.command("fairness")
def fairness_(
    times: Annotated[float, typer.Option(help="How many times as much the greedy tenant sends.", min=1)] = 20.0,
    rate: Annotated[float, typer.Option(help="Requests/s of the modest one.", min=0.1)] = 4.0,
    duration: Annotated[float, typer.Option(help="Seconds of each run.", min=5)] = 60.0,
    seats: Annotated[int, typer.Option(help="Requests that the model works on at once.", min=1)] = 8,
    rounds: Rounds = 1,
    json: Json = False,
) -> None:
    """What one greedy tenant does to another: Locust for the modest one alone, and again beside the greedy one.

    Exits with 1 when the modest tenant's p99 TTFT grows beyond the goal. Writes bench-fairness.json into the folder of
    reports.
    """
    own = settings()
    plan = fairness.FairnessPlan(own.state_dir, rate, times, duration, rounds, seats)
    with progress(json) as say:
        report = fairness.measure(plan, say)
    written("fairness", report, json, show_fairness)
    if report["ratio"] > report["target"]:
        raise typer.Exit(1)


def show_fairness(report: dict[str, Any]) -> None:
    """The report as a table."""
    names = {"alone": "modest, alone", "beside": "modest, beside the greedy one", "greedy": "greedy"}
    table(["tenant", "sent>", "answered>", "refused or failed", "TTFT ms\np50>", "p90>", "p99>"], [(
        says, row["sent"], row["answered"], ", ".join(f"{k} {n}" for k, n in row["errors"].items()),
        *(f"{row['ttft_ms'][q]:.1f}" for q in ("p50", "p90", "p99"))) for name, says in names.items()
        for row in (report[name],)])
    verdict = "[green]within[/]" if report["ratio"] <= report["target"] else "[red]above[/]"
    rounds = f" (its rounds: {', '.join(f'{r:.2f}' for r in report['ratios'])})" if len(report["ratios"]) > 1 else ""
    console.print(f"p99 beside the greedy tenant over p99 alone: [bold]{report['ratio']:.2f}[/]{rounds}, {verdict} the "
                  f"{report['target']:g} it may be.", highlight=False, soft_wrap=True)


@app.command("kv")
def kv_(
    model: Annotated[list[str] | None, typer.Option("--model", help=f"Only this layout; may be repeated. There are: "
                                                    f"{', '.join(c.entry for c in kv.CASES)}.")] = None,
    catalogue: Annotated[Path, typer.Option(help="Folder of the catalogue.")] = Path("deployments/catalogue"),
    json: Json = False,
) -> None:
    """Hold the KV cache's formulas (`flotilla fit`) against what small engines with real models' attention report.

    Writes bench-kv.json into the folder of reports. Exits with 1 when one is off by more than the limit.
    """
    plan = kv.KvPlan(kv.chosen(model or []), catalogue)
    with progress(json) as say:
        report = kv.measure(plan, say)
    written("kv", report, json, show_kv)
    if report["failed"] or any(abs(row["off"]) > report["limit"] for row in report["models"]):
        raise typer.Exit(1)


def show_kv(report: dict[str, Any]) -> None:
    """The report as a table."""
    table(["attention of", "layout", "layers>", "request>", "cache,\ncomputed>", "vLLM\nsays>", "off>"], [(
        r["name"], r["layout"], r["layers"], f"{r['context']:,}", f"{r['tokens']['computed']:,}",
        f"{r['tokens']['reported']:,}", f"{r['off']:+.2%}") for r in report["models"]], title="tokens")
    worst = max((abs(r["off"]) for r in report["models"]), default=0.0)
    memory = report["load"]["memory_bytes"] >> 20
    console.print(f"Off by {worst:.2%} at most; {report['limit']:.0%} are allowed. {memory} MiB of cache, 16 bits, one "
                  "device.", highlight=False, soft_wrap=True)
    _failed(report)


def show_gateway(report: dict[str, Any]) -> None:
    """The report as tables."""
    columns = ["arm", "req/s>", "tok/s>", "of\nbare>", "low–\nhigh>", "TTFT ms\np50>", "p99>", "added>",
               "CPU s/\n1k tok>"]
    rows = report["arms"]
    for streams in sorted({r["streams"] for r in rows}):
        table(columns, [(
            r["name"], f"{r['requests_per_s']:.1f}", f"{r['tokens_per_s']:,.0f}", _or(r["tokens_per_s_ratio"], ".3f"),
            "–".join(f"{v:.2f}".removeprefix("0") for v in r["spread"].get("tokens_per_s_ratio", [])),
            f"{r['ttft_ms']['p50']:.1f}",
            f"{r['ttft_ms']['p99']:.1f}", _or(r["added_ttft_ms"], "+.2f"), f"{r['cpu_s_per_1000_tokens']:.3f}",
        ) for r in rows if r["streams"] == streams], title=f"{streams} streams of {report['load']['tokens']} tokens")
        console.print()
    console.print("CPU: of what stands between the client and the engine's own server. TTFT added: to bare vLLM's "
                  "median.", highlight=False, soft_wrap=True)
    _failed(report)
    _noisy(max((r["others_cores"] for r in rows), default=0.0))


def _noisy(others: float) -> None:
    if others > QUIET:
        console.print(f"[yellow]The machine was not quiet:[/] others took up to {others:.2f} cores. Measure again.",
                      highlight=False, soft_wrap=True)


def _failed(report: dict[str, Any]) -> None:
    for arm in report["failed"]:
        where = f" at {arm['streams']} streams" if arm.get("streams") else ""
        console.print(f"[red]{arm['name']}[/]{where} is not in the tables: ", end="")
        console.print(arm["reason"], markup=False, highlight=False, soft_wrap=True)


def _or(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def written(name: str, report: dict[str, Any], json: bool, show: Callable[[dict[str, Any]], None]) -> None:
    """Write bench-NAME.json into the folder of reports; then print it, or show its tables."""
    path = settings().reports_dir / f"bench-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json_module.dumps(report, indent=1) + "\n")
    draft.replace(path)
    stderr.print(f"written: {path}", highlight=False, soft_wrap=True)
    if json:
        as_json(report)
    else:
        show(report)


@contextlib.contextmanager
def progress(json: bool) -> Iterator[gateway.Say]:
    """What is being done, on stderr: one line on a terminal, a line each elsewhere. SIGTERM ends as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        if stderr.is_terminal and not json:
            with stderr.status("") as status:
                yield status.update
        else:
            yield lambda note: stderr.print(f"… {note}", highlight=False, soft_wrap=True)
    finally:
        signal.signal(signal.SIGTERM, before)
