"""`flotilla catalogue`, `fit`: which open models there are, and what holds them at what price."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from serving.cli.output import as_json, console, table
from serving.cli.run import Json
from serving.costs.figures import dollars
from serving.errors import ConfigError, nearest
from serving.fleet.catalogue import read_accelerator_book
from serving.fleet.hardware import SPECS
from serving.fleet.models import entries
from serving.fleet.models.cache import fixed_bytes, token_bytes
from serving.fleet.models.choose import COUNTS, Choice, choices, split_for
from serving.fleet.models.entries import Entry
from serving.fleet.models.fit import GIB, Demand, default_batched, fit
from serving.fleet.models.layers import layout
from serving.fleet.models.shape import model_shape
from serving.fleet.models.subject import Subject, subject_of
from serving.fleet.roofline import rates

Folder = Annotated[Path, typer.Option("--catalogue", help="Folder of the catalogue.")]
_WIDE = 120  # columns of a terminal from which on tables show all they have
Capacity = Literal["on_demand", "spot"]
FOLDER, BOOK = Path("deployments/catalogue"), Path("deployments/prices/accelerators.csv")


def catalogue_(
    model: Annotated[str | None, typer.Argument(help="Show this entry: family/model, its last part, or a hub id.",
                                                show_default=False)] = None,
    folder: Folder = FOLDER,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of entries.")] = False,
    json: Json = False,
) -> None:
    """List the open models that a fleet file can name in one line, or show one with the source of each fact."""
    if schema:
        as_json(Entry.model_json_schema())
        return
    found = entries.load(folder)
    if model is not None:
        show(found.named(model), json)
        return
    listed = [found[name] for name in found]
    if json:
        as_json({e.name: e.model_dump(mode="json", exclude={"config"}) | {"kv_layout": layout(e.size.cache)}
                 for e in listed})
        return
    if console.width >= _WIDE:
        table(["model!", "parameters>", "active>", "context>", "cache", "licence", "runs on"],
              [(e.name, f"{e.parameters.total:g} B", f"{e.parameters.active:g} B", f"{e.context:,}",
                layout(e.size.cache), licence(e), ", ".join(dict.fromkeys(v.name for v in e.variants)))
               for e in listed])
        return
    table(["model!", "billions,\nactive>", "context>", "licence", "runs on"],
          [(e.name.partition("/")[2], f"{e.parameters.total:g}, {e.parameters.active:g}", f"{e.context:,}", licence(e),
            _first(list(dict.fromkeys(v.name for v in e.variants)))) for e in listed])
    _say("[dim]+2: and two further variants; `flotilla catalogue MODEL` shows all of one.[/]")


def _first(variants: list[str]) -> str:
    return variants[0] + (f" +{len(variants) - 1}" if len(variants) > 1 else "")


def show(entry: Entry, json: bool) -> None:
    """One entry."""
    size = entry.size
    if json:
        as_json({"name": entry.name, **entry.model_dump(mode="json"), "kv_layout": layout(size.cache),
                 "kv_bytes_per_token": token_bytes(size.cache), "parameters_computed": size.parameters,
                 "active_parameters_computed": size.active_parameters})
        return
    say = _say
    say(f"[bold]{entry.title}[/]  {entry.maker}  {entry.released}")
    say(f"licence         {licence(entry)}" + (f": {entry.licence.conditions}" if entry.licence.conditions else ""))
    say(f"architecture    {entry.architecture}, {size.layers} layers, {size.heads} heads, {layout(size.cache)}")
    say(f"parameters      {entry.parameters.total:g} billion, {entry.parameters.active:g} active (published); "
        f"{size.parameters / 1e9:.1f} and {size.active_parameters / 1e9:.1f} by its configuration")
    say(f"KV per token    {_kib(token_bytes(size.cache))} in 16 bits"
        + (f", and {fixed_bytes(size.cache) / 1024**2:.0f} MiB per request" if fixed_bytes(size.cache) else ""))
    say(f"context         {entry.context:,} tokens")
    say(f"modalities      {', '.join(entry.modalities)}; endpoints {', '.join(entry.endpoints)}")
    say(f"parsers         tool calls {entry.tool_call_parser or 'none'}, reasoning {entry.reasoning_parser or 'none'}")
    for title, text in (("chat template", entry.chat_template), ("small stand-in", entry.small or "none")):
        say(f"{title:<15} {text or 'nothing of note'}")
    for one in entry.sampling:
        values = one.model_dump(exclude_none=True, exclude={"when"})
        say(f"sampling        {', '.join(f'{k} {v:g}' for k, v in values.items())}{f' ({one.when})' * bool(one.when)}")
    console.print()
    table(["variant!", "split", "max_model_\nlen>", "max_num_\nseqs>", "recommended by"],
          [(v.name, _split(v.split), f"{v.max_model_len:,}", v.max_num_seqs, v.recommended_by) for v in entry.variants])
    for precision, weights in entry.weights.items():
        say(f"[dim]weights in {precision}:[/] {weights.source}")
    for title, lines in (("limits", entry.limits), ("not verified", entry.unverified)):
        for line in lines:
            say(f"[dim]{title}:[/] {line}")
    for what, where in entry.sources.items():
        say(f"[dim]source of {what}: {where}[/]")


def licence(entry: Entry) -> str:
    """Its name, and whether the hub asks for consent."""
    return entry.licence.name + (" (gated)" if entry.licence.gated else "")


def fit_(
    model: Annotated[str, typer.Argument(help="Catalogue entry, hub id of one, or a path: a checkpoint's folder or "
                                              "its config.json.")],
    accelerator: Annotated[str | None, typer.Option(help=f"Only this: {', '.join(SPECS)}.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of a request, prompt and answer. Default: 8,192, or less "
                                                     "where the model allows less.", min=16)] = None,
    concurrency: Annotated[int, typer.Option(help="Requests of that length that must fit at once.", min=1)] = 1,
    precision: Annotated[str | None, typer.Option(help="Only these weights of the entry.")] = None,
    kv: Annotated[str, typer.Option("--kv-cache-dtype", help="auto (16 bits) or fp8.")] = "auto",
    folder: Folder = FOLDER,
    prices: Annotated[Path, typer.Option(help="Price book of accelerators.")] = BOOK,
    capacity: Annotated[Capacity, typer.Option(help="How devices are rented.")] = "on_demand",
    json: Json = False,
) -> None:
    """Which accelerators hold a model, how many, with how much room, at what price and about which speed.

    Weights and KV cache are computed as vLLM allocates them; activations, overhead and speed are estimates.
    """
    subject = subject_of(model, folder, precision)
    if accelerator is not None and accelerator not in SPECS:
        near = nearest(accelerator, SPECS)
        raise ConfigError(f"--accelerator {accelerator!r}: no data sheet of it here; "
                          + (f"did you mean {near!r}?" if near else f"there are {', '.join(SPECS)}"))
    length = context or min(8192, subject.context)
    if length > subject.context:
        raise ConfigError(f"--context {length:,}: {subject.title} takes {subject.context:,} tokens at most")
    book, now = read_accelerator_book(prices), time.time()
    demand = Demand(length, max(concurrency, 64), cache_dtype=kv, pooling=subject.pooling)
    devices = [SPECS[accelerator]] if accelerator else list(SPECS.values())
    found = choices(subject.size, subject.formats, devices, book, demand, concurrency, now, capacity)
    every = _every(subject, demand, devices[0].name, concurrency) if accelerator else []
    if json:
        as_json(_told(subject, demand, concurrency, found, every))
        return
    _head(subject, demand, concurrency)
    if every:
        table(["devices!", "in", "weights>", "activ-\nations>", "over-\nhead>", "for\nKV>", "room>",
               "requests\nat once>", "verdict"],
              [tuple(value for name, value in row.items() if name != "memory") for row in every],
              title=f"GiB per device, which has {every[0]['memory']}")
        console.print()
    if not found:
        _say(f"[red]Nothing that is known here holds {_requests(concurrency, length)}.[/]")
        raise typer.Exit(1)
    estimates = ["~ prefill\ntok/s>", "~ decode\ntok/s>", "~ per\nrequest>"]
    shown = range(3) if console.width >= _WIDE else range(1, 3) if concurrency > 1 else range(1, 2)
    table(["holds it!", "in", "$/hour>", "room,\nGiB>", "at\nonce>", *(estimates[i] for i in shown), ""],
          [(c.variant, c.precision, dollars(c.usd_per_hour) if c.usd_per_hour is not None else "no price",
            f"{c.fit.room / GIB:.1f}", c.concurrency,
            *(f"{_speed(subject, c, length, concurrency)[i]:,.0f}" for i in shown), _marks(c, found)) for c in found])
    _say("[dim]room: per device; at once: requests of that length.[/]")
    _say(f"[dim]~ roofline estimates at {_requests(concurrency, length)}, not measurements. Prices: cheapest "
         f"{capacity} rows of {prices} ({book.version}). Activations and overhead are estimates: tight "
         "needs a trial.[/]")


def _every(subject: Subject, demand: Demand, name: str, concurrency: int) -> list[dict[str, Any]]:
    """Every number of one kind of device, also those that do not hold it."""
    device, rows = SPECS[name], []
    asked = replace(demand, batched=default_batched(name, device.memory))
    for precision, (form, loaded) in subject.formats.items():
        for count in COUNTS[:5]:
            got = fit(subject.size, form, split_for(count, subject.size), device.memory, asked, loaded)
            holds = got.concurrency(demand.context)
            verdict = got.verdict if holds >= concurrency or got.verdict == "no" else f"fits {holds} only"
            rows.append({"devices": f"{name} x{count}", "weights": precision, "memory": f"{got.memory / GIB:.1f}",
                         "weights_gib": f"{got.weights / GIB:.1f}", "activations": f"{got.activations / GIB:.1f}",
                         "overhead": f"{got.overhead / GIB:.1f}", "kv": f"{got.left / GIB:.1f}",
                         "room": f"{got.room / GIB:.1f}", "requests": holds, "verdict": got.reason or verdict})
    return rows


def _speed(subject: Subject, choice: Choice, context: int, requests: int) -> tuple[float, float, float]:
    shape = model_shape(subject.title, subject.size, subject.formats[choice.precision][0],
                        choice.fit.demand.element_bytes)
    found = rates(shape, SPECS[choice.accelerator], requests, context, choice.split.devices)
    return found.prefill, found.decode, found.decode_per_request


def _marks(choice: Choice, found: list[Choice]) -> str:
    fewest = min(found, key=lambda c: (c.split.devices, c.fit.memory))
    marks = {"cheapest": choice is found[0] and choice.price is not None, "smallest": choice is fewest,
             "tight": choice.fit.verdict == "tight"}
    return ", ".join(word for word, is_it in marks.items() if is_it)


def _head(subject: Subject, demand: Demand, concurrency: int) -> None:
    size, element = subject.size, demand.element_bytes
    grows, fixed = token_bytes(size.cache, element), fixed_bytes(size.cache, element)
    _say(f"[bold]{subject.title}[/]  {size.parameters / 1e9:.1f} billion parameters, "
         f"{size.active_parameters / 1e9:.1f} active; {layout(size.cache)}; licence {subject.licence}")
    _say(f"KV cache: {_kib(grows)} per token" + (f" and {fixed / 1024**2:.0f} MiB per request" if fixed else "")
         + f" ({'8' if element == 1 else '16'} bits), whole model; for "
         f"{_requests(concurrency, demand.context)}")
    console.print()


def _told(subject: Subject, demand: Demand, concurrency: int, found: list[Choice],
          every: list[dict[str, Any]]) -> dict[str, Any]:
    def one(c: Choice) -> dict[str, Any]:
        speed = _speed(subject, c, demand.context, concurrency)
        return {"accelerator": c.accelerator, "devices": c.split.devices, "precision": c.precision,
                "usd_per_hour": c.usd_per_hour, "price_row": str(c.price) if c.price else None,
                "verdict": c.fit.verdict, "bytes_per_device": {
                    "memory": c.fit.memory, "weights": c.fit.weights, "activations_estimate": c.fit.activations,
                    "overhead_estimate": c.fit.overhead, "kv_cache": c.fit.left, "room": c.fit.room},
                "max_concurrency": c.concurrency, "longest_context": min(c.fit.longest, subject.context),
                "estimate": {"method": "roofline", "prefill_tokens_per_s": speed[0],
                             "decode_tokens_per_s": speed[1], "decode_tokens_per_s_per_request": speed[2]}}

    size = subject.size
    return {"model": subject.name, "title": subject.title, "context": demand.context, "concurrency": concurrency,
            "kv_layout": layout(size.cache), "kv_bytes_per_token": token_bytes(size.cache, demand.element_bytes),
            "kv_bytes_per_request_fixed": fixed_bytes(size.cache, demand.element_bytes),
            "parameters": size.parameters, "active_parameters": size.active_parameters,
            "choices": [one(c) for c in found], **({"every": every} if every else {})}


def _requests(number: int, length: int) -> str:
    return f"{number} request{'s' * (number != 1)} of {length:,} tokens"


def _split(split: Any) -> str:
    parts = [f"{name}{n}" for name, n in (("tp", split.tensor), ("pp", split.pipeline), ("dp", split.data)) if n > 1]
    return " ".join(parts + ["ep"] * split.expert) or "–"


def _kib(value: float) -> str:
    return f"{value / 1024:.1f} KiB"


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)

