"""`flotilla prices`: what the price books say, what a node's labels lead to, and how another tokenizer counts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict
from decimal import Decimal
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.cluster import Context
from serving.cli.fleet import load
from serving.cli.output import as_json, console, table
from serving.cli.run import FleetFile, Json
from serving.errors import ConfigError
from serving.fleet import tokenratio
from serving.fleet.accelerator_book import when
from serving.fleet.accelerators import resolve
from serving.fleet.catalogue import price_book, read_accelerator_book
from serving.fleet.money import usd
from serving.kubernetes import cluster, kinds, nodeprices
from serving.kubernetes.nodeprices import NodePrices
from serving.kubernetes.watching import watch

BOOK = Path("deployments/prices/accelerators.csv")
app = typer.Typer(no_args_is_help=True, help="Prices of APIs and accelerators, and how tokenizers compare.")

# How tiktoken's vocabularies cut text before they merge bytes (tiktoken_ext.openai_public, MIT licence): the
# vocabulary files do not say it, and the library itself would fetch the file anew.
_PATTERNS = {
    "cl100k_base": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
                   r"|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k_base": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
                  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
                  r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
                  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
                  r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


@app.command("list")
def list_(
    file: FleetFile = None,
    name: Annotated[str, typer.Option(help="Only models with this in their name.")] = "",
    json: Json = False,
) -> None:
    """List the API prices that the fleet file's price book has, USD per million tokens."""
    path, fleet = load(file)
    book = price_book(fleet, path)
    found = [price for key, price in book.prices.items() if name.lower() in key.lower()]
    if json:
        as_json({"version": book.version, "origin": book.origin, "unpriced": book.unpriced,
                 "usd_per_token": {price.name: {key: _number(value) for key, value in asdict(price).items()
                                                if key != "name"} for price in found}})
        return
    table(["API", "in>", "cached>", "out>", "batch in>", "batch out>"],
          [(p.name, *(_mtok(value) for value in (p.input, p.cached_input, p.output, p.batch_input, p.batch_output)))
           for p in found], title="USD per million tokens")
    console.print(f"[dim]price book {book.version}: {book.origin}[/]", highlight=False, soft_wrap=True)


@app.command()
def accelerators(
    file: FleetFile = None,
    book: Annotated[Path | None, typer.Option(help="Another accelerator price book than the fleet file's; without "
                                                   f"either {BOOK}.")] = None,
    label: Annotated[list[str] | None, typer.Option(
        "--label", metavar="KEY=VALUE",
        help="A label of a Kubernetes node; with these, what each profile of the fleet file costs there.")] = None,
    json: Json = False,
) -> None:
    """List accelerator prices, USD per device and hour, or what a node with certain labels costs."""
    _, fleet = load(file)
    found = read_accelerator_book(book) if book else fleet.accelerator_book or read_accelerator_book(BOOK)
    if label:
        labels = _labels(label)
        lines = {name: resolve(profile, found, labels) for name, profile in fleet.accelerators.items()}
        if json:
            as_json({name: [{"from": at, "usd_per_hour": usd(price)} for at, price in line.changes]
                     for name, line in lines.items()})
        else:
            table(["profile", "$/device-hour>", "from"],
                  [(name, f"{usd(price):g}", when(at)) for name, line in lines.items() for at, price in line.changes])
        return
    if json:
        as_json({"version": found.version, "rows": [asdict(row) | {"usd_per_hour": _number(row.usd_per_hour)}
                                                    for row in found.rows]})
        return
    table(["accelerator", "provider", "region", "instance type", "capacity", "$/device-hour>", "from"],
          [(r.accelerator, r.provider, r.region, r.instance_type, r.capacity.replace("_", " "),
            "not offered" if r.usd_per_hour is None else f"{r.usd_per_hour:f}", r.since) for r in found.rows])
    console.print(f"[dim]price book {found.version}; sources stand in {found.name}[/]", highlight=False, soft_wrap=True)


@app.command()
def nodes(
    file: FleetFile = None,
    context: Context = None,
    follow: Annotated[bool, typer.Option("--watch", help="Go on, and tell what appears, changes and goes.")] = False,
    json: Json = False,
) -> None:
    """Show what a cluster's nodes cost by their labels, for profiles that leave their price to them.

    Exits with 1 when the labels of a node with GPUs lead to no price. With --watch it goes on until Ctrl-C.
    """
    _, fleet = load(file)
    if not any(profile.needs_labels for profile in fleet.accelerators.values()):
        raise ConfigError(f"no profile of {fleet.name} has from_node_labels: true; their prices are those of `flotilla "
                          "models`")
    there = cluster.connect(context)
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            for event in nodeprices.events(watch(there, kinds.NODES), fleet, time.time):
                told = asdict(event)
                print(dumps(told) if json else f"{when(event.at)}  {event.what:<8} {event.node.name}  "
                      f"{_node_text(event.node)}", flush=True)
        return
    found = [nodeprices.priced(node, fleet, time.time()) for node in there.items(kinds.NODES)]
    if json:
        as_json([asdict(node) for node in found])
    else:
        table(["node", "instance type", "region", "capacity", "GPUs>", "profile: $/device-hour"],
              [(n.name, n.instance_type, n.region, n.capacity.replace("_", " "), n.gpus, _node_prices(n))
               for n in found])
    if any(node.gpus and node.unknown for node in found):
        raise typer.Exit(1)


def _node_text(node: NodePrices) -> str:
    return "  ".join(part for part in (node.instance_type, node.region, node.capacity.replace("_", " "),
                                       _node_prices(node)) if part)


def _node_prices(node: NodePrices) -> str:
    known = [f"{profile}: {price:g}" for profile, price in node.usd_per_hour.items()]
    return ", ".join(known + [why for why in dict.fromkeys(node.unknown.values()) if node.gpus])


@app.command()
def ratio(
    ours: Annotated[str, typer.Argument(help="Our model's tokenizer: a folder, a tokenizer.json or a .tiktoken file.")],
    theirs: Annotated[str, typer.Argument(help="The API's tokenizer, in the same forms.")],
    text: Annotated[Path, typer.Option(help="Text like your traffic, in language and kind.")],
    json: Json = False,
) -> None:
    """Measure how many tokens another tokenizer counts for one of ours, for a comparator's token_ratio."""
    try:
        sample = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{text}: cannot be read: {error}") from error
    try:
        found = tokenratio.measure(sample, counter(Path(ours)), counter(Path(theirs)))
    except ValueError as error:
        raise ConfigError(f"{text}: {error}; use a longer text") from error
    source = f"{Path(theirs).name} and {Path(ours).name} on {text.name}, {len(sample)} characters"
    if json:
        as_json({"ours": found.ours, "theirs": found.theirs, "token_ratio": _number(found.ratio),
                 "token_ratio_source": source})
        return
    console.print(f"{found.theirs} tokens there for {found.ours} here. For the comparator in the fleet file:\n")
    console.print(f'        token_ratio: {found.ratio:f}\n        token_ratio_source: "{source}"', markup=False,
                  highlight=False, soft_wrap=True)


def counter(path: Path) -> tokenratio.Count:
    """How a tokenizer on disk counts, without special tokens. Raises: ConfigError when there is none, naming forms."""
    if path.suffix == ".tiktoken":
        return _tiktoken(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.is_file():
            from tokenizers import Tokenizer

            fast = Tokenizer.from_file(str(file))
            return lambda text: len(fast.encode(text, add_special_tokens=False).ids)
        if path.is_dir():
            from transformers import AutoTokenizer

            slow = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
            return lambda text: len(slow.encode(text, add_special_tokens=False))
    except Exception as error:  # the libraries raise bare exceptions of many kinds
        raise ConfigError(f"{path}: not a tokenizer: {error}") from error
    raise ConfigError(f"{path}: no such tokenizer; give a folder with tokenizer.json, such a file, or a .tiktoken file")


def _tiktoken(path: Path) -> Callable[[str], int]:
    if path.stem not in _PATTERNS:
        raise ConfigError(f"{path}: how {path.stem!r} cuts text is not known here; known: "
                          f"{', '.join(f'{name}.tiktoken' for name in _PATTERNS)}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    from tiktoken import Encoding
    from tiktoken.load import load_tiktoken_bpe

    try:
        encoding = Encoding(path.stem, pat_str=_PATTERNS[path.stem], mergeable_ranks=load_tiktoken_bpe(str(path)),
                            special_tokens={})
    except Exception as error:  # as above
        raise ConfigError(f"{path}: not a vocabulary of tiktoken: {error}") from error
    return lambda text: len(encoding.encode_ordinary(text))


def _labels(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise ConfigError(f"--label {key + equals!r}: write it as KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _mtok(value: Decimal | None) -> str:
    return "–" if value is None else f"{float(value * 1_000_000):.6g}"


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
