"""Where the money went, as one page: a self-contained HTML file that opens anywhere, offline, without a script.

Everything that came from outside (names of models, tenants and fleets) is escaped where it enters the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from serving.costs import figures, svg
from serving.costs.breakeven import Against, BreakEven
from serving.costs.figures import DASH, dollars, exact, money, percent
from serving.costs.style import CSS
from serving.fleet.money import usd
from serving.fleet.records import BUCKETS, Bucket

_WIDE, _NARROW = 1040, 330
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_DAYS_SHOWN = 400


@dataclass(frozen=True)
class Part:
    """A part of the bill: a model's or a day's. Nano-USD by bucket."""

    name: str
    nanousd: Mapping[Bucket, int]
    requests: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.nanousd.values())


@dataclass(frozen=True)
class Elsewhere:
    """A model's mean request, USD, on our three bases and at each API."""

    model: str
    direct: float | None
    with_waste: float | None
    loaded: float | None
    apis: tuple[tuple[str, str, float], ...]  # name, role, USD


@dataclass(frozen=True)
class Even:
    """A model's break-even, or why there is none."""

    model: str
    about: str
    even: BreakEven | None
    missing: str = ""


@dataclass(frozen=True)
class Page:
    """All that the page says. `bill_nanousd`: what the parts have to add up to; None where only a part is shown.
    `warning`: stands above all figures."""

    fleet: str
    span: str
    made: str
    models: tuple[Part, ...]
    days: tuple[Part, ...]
    elsewhere: tuple[Elsewhere, ...]
    evens: tuple[Even, ...]
    price_book: str
    policy: str
    bill_nanousd: int | None = None
    notes: tuple[str, ...] = ()
    warning: str = ""


def render(page: Page) -> str:
    """The whole file's text."""
    title = f"What the fleet {page.fleet} cost"
    cards = (_heads(page), _bill(page), _days(page), _elsewhere(page), _evens(page), _words(page))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}"><title>{escape(title)}</title>'
        f"<style>{CSS}</style></head><body><main><h1>{escape(title)}</h1>"
        f'<p class="sub">{escape(page.span)} · made {escape(page.made)} · price book {escape(page.price_book)}</p>'
        f"{_warning(page.warning)}"
        f"{''.join(cards)}</main></body></html>\n"
    )


def _warning(text: str) -> str:
    return f'<p class="warning" role="note">{escape(text)}</p>' if text else ""


def _heads(page: Page) -> str:
    total, requests = sum(p.total for p in page.models), sum(p.requests for p in page.models)
    work = sum(p.nanousd["direct"] for p in page.models)
    evens = [e.even for e in page.evens if e.even]
    least, most = min((e.utilisation for e in evens), default=0.0), max((e.utilisation for e in evens), default=0.0)
    use = percent(least) if percent(least) == percent(most) else f"{percent(least)} to {percent(most)}"
    heads = (
        ("The bill", money(total), _adds_up(page, total)),
        ("Requests", f"{requests:,}", "ended"),
        ("A request", dollars(figures.per(total, requests)), "fully loaded, all models"),
        ("Direct work", percent(work / total if total else None),
         f"of the bill; utilisation {use}" if evens else "of the bill"),
    )
    items = "".join(f"<li><span>{a}</span><strong>{b}</strong><small>{escape(c)}</small></li>" for a, b, c in heads)
    return f'<ul class="heads">{items}</ul>'


def _adds_up(page: Page, total: int) -> str:
    if page.bill_nanousd is None:
        return "of the time shown"
    return "all parts add up to it" if page.bill_nanousd == total else f"but the meters say {money(page.bill_nanousd)}"


def _bill(page: Page) -> str:
    series = _series(page.models)
    bars = [svg.Bar(p.name, tuple(usd(p.nanousd[b]) for b in BUCKETS)) for p in page.models]
    names = [figures.BUCKETS[b] for b in BUCKETS]
    drawn = _both(lambda width, key: svg.stacked_rows(bars, names, width, "The bill by model and bucket", key),
                  "models")
    return _card("Where the bill went", _legend(series) + drawn + _table(
        "The bill by model, USD", ["Model", "Requests", *(figures.BUCKETS[b] for b in series), "Sum"],
        _rows(page.models, series, True), last_is_sum=True))


def _days(page: Page) -> str:
    days = page.days[-_DAYS_SHOWN:]
    if not days:
        return ""
    series = _series(days)
    bars = [svg.Bar(p.name, tuple(usd(p.nanousd[b]) for b in BUCKETS)) for p in days]
    names = [figures.BUCKETS[b] for b in BUCKETS]
    drawn = _both(lambda width, key: svg.stacked_columns(bars, names, width, "The bill by day and bucket", key), "days")
    rows = _table("The bill by day (UTC), USD", ["Day", "Requests", *(figures.BUCKETS[b] for b in series), "Sum"],
                  _rows(days, series, False))
    return _card("Day by day", _legend(series) + drawn + f"<details><summary>The same as a table</summary>{rows}"
                               "</details>")


def _elsewhere(page: Page) -> str:
    if not page.elsewhere:
        return ""
    rows = []
    for e in page.elsewhere:
        rows.append([f"<b>{escape(e.model)}</b><small>here, fully loaded; direct {dollars(e.direct)}, with waste "
                     f"{dollars(e.with_waste)}</small>", f"<b>{dollars(e.loaded)}</b>", ""])
        for name, role, amount in e.apis:
            share = figures.saving(e.loaded, amount)
            rows.append([_api(name, role), dollars(amount), _against(share)])
    text = ("<p class=\"muted\">The mean request of each model, and what the same tokens cost at list prices. Only the "
            "fully loaded basis may be compared with an API's price: it carries waste, idle time, cold starts and "
            "overhead.</p>")
    return _card("A request here and elsewhere", text + _table(
        "Cost per request", ["Where", "A request", "Here it is"], rows))


def _evens(page: Page) -> str:
    if not page.evens:
        return ""
    body = ('<p class="muted">The busier a replica, the cheaper a request. Where the curve crosses a line, both cost '
            "the same.</p>")
    for index, found in enumerate(page.evens):
        body += f"<h3>{escape(found.model)}</h3>"
        if found.even is None:
            body += f"<p>No break-even: {escape(found.missing)}.</p>"
            continue
        body += f'<p class="muted">{escape(found.about)}</p>' + _curve(found.even, index)
    return _card("Break-even", body)


def _curve(e: BreakEven, index: int) -> str:
    levels = [svg.Level(a.name, a.usd_per_request) for a in e.against]
    today = e.utilisation if e.requests_per_s > 0 else None
    drawn = _both(lambda width, key: svg.cost_curve(e.usd_at, levels, today, width,
                                                    f"Cost of a request of {e.model} over utilisation", key),
                  f"even{index}")
    rows = [[_api(a.name, a.role, a.usd_per_request), *_utilisations(a), _against(a.saving_now)] for a in e.against]
    heads = ["Against", "Break-even", f"{e.saving:.0%} saved at", f"Now, at {percent(today)}"]
    return svg.curve_legend("a request here", levels) + drawn + _table(f"Break-even of {e.model}", heads, rows)


def _api(name: str, role: str, amount: float | None = None) -> str:
    cost = f", {dollars(amount)} a request" if amount is not None else ""
    return f"{escape(name)}<small>{escape(figures.ROLES.get(role, role))}{cost}</small>"


def _utilisations(a: Against) -> tuple[str, str]:
    def shown(value: float | None, possible: bool) -> str:
        return DASH if value is None else percent(value) if possible else '<span class="bad">impossible</span>'

    return shown(a.breakeven, a.possible), shown(a.for_saving, a.saving_possible)


def _against(saving: float | None) -> str:
    """A saving or loss, in its colour."""
    if saving is None:
        return DASH
    return f'<span class="{"good" if saving > 0 else "bad"}">{figures.verdict(saving)}</span>'


def _words(page: Page) -> str:
    words = (
        ("Direct", "engine steps, by each request's share of them, of requests that were answered"),
        ("Waste", "work that no one received: aborted and failed requests, tokens computed again after a preemption, "
                  "drafted tokens thrown away"),
        ("Idle", "time in which a replica was ready and did no one's work"),
        ("Cold start", "time before a replica was ready"),
        ("Overhead", "gateways, head node and storage"),
        ("Who pays for idle time", page.policy or "not known: the fleet file could not be read"),
        ("Utilisation u", "requests answered over what full replicas could have answered in all of their time"),
        ("Break-even u*", "the utilisation at which a request costs what the API asks; above 100% it is impossible"),
    )
    body = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in words)
    notes = "".join(f'<p class="muted">{escape(note)}</p>' for note in page.notes)
    return _card("Words", f"<dl>{body}</dl>{notes}")


def _series(parts: Sequence[Part]) -> list[Bucket]:
    return [b for b in BUCKETS if any(p.nanousd[b] for p in parts)]


def _legend(series: Sequence[Bucket]) -> str:
    return svg.legend({figures.BUCKETS[b]: f"var(--b{BUCKETS.index(b)})" for b in series})


def _rows(parts: Sequence[Part], series: Sequence[Bucket], with_sum: bool) -> list[list[str]]:
    """Rows of a table in USD."""
    text = figures.aligned(p.total for p in parts)
    return [[escape(p.name), f"{p.requests:,}", *(escape(text(p.nanousd[b])) for b in series),
             f'<span title="{exact(p.total)} USD">{escape(text(p.total))}</span>']
            for p in (*parts, *([_sum(parts)] if with_sum else []))]


def _sum(parts: Sequence[Part]) -> Part:
    return Part("All", {b: sum(p.nanousd[b] for p in parts) for b in BUCKETS}, sum(p.requests for p in parts))


def _both(draw: Callable[[int, str], str], key: str) -> str:
    """A wide drawing and a narrow one, of which the page shows one."""
    return (f'<div class="wide">{draw(_WIDE, f"{key}-w")}</div><div class="narrow">{draw(_NARROW, f"{key}-n")}</div>')


def _card(title: str, body: str) -> str:
    return f'<section class="card"><h2>{escape(title)}</h2>{body}</section>'


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], last_is_sum: bool = False) -> str:
    """A table that scrolls sideways on its own; the first cell of a row is its head. Cells come in escaped."""
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = ""
    for number, row in enumerate(rows):
        kind = ' class="sum"' if last_is_sum and number == len(rows) - 1 else ""
        cells = f'<th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:])
        body += f"<tr{kind}>{cells}</tr>"
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>'
            f"{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
