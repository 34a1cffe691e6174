"""A comparison for pull requests (Markdown) and for continuous integration (JUnit XML), and its figures as texts."""

from __future__ import annotations

from loadtests.report import figures
from loadtests.report.comparing import Comparison, Difference, sentence
from loadtests.report.figurelist import MIX_FIGURES, MODEL_FIGURES
from loadtests.report.junit import Case, junit_xml
from loadtests.report.markdown import bullets, md_table, plain_text

_BY_KEY = {figure.key: figure for figure in (*MODEL_FIGURES, *MIX_FIGURES)}


def value_text(one: Difference, value: float) -> str:
    """A figure with its unit."""
    match one.unit:
        case "ms":
            return f"{figures.ms(value)} ms"
        case "share":
            return figures.percent(value)
        case "USD":
            return figures.usd(value)
        case _:
            return f"{figures.rate(value)}/s"


def change_text(one: Difference) -> str:
    """The change as a person says it."""
    return "from nothing" if one.change.value is None else _BY_KEY[one.key].spread(one.change.value)


def interval_text(one: Difference) -> str:
    """Its interval; an end that is not known is left open."""
    spread, low, high = _BY_KEY[one.key].spread, one.change.low, one.change.high
    if low is None and high is None:
        return figures.DASH
    if low is None:
        return f"at most {spread(high)}"
    return f"at least {spread(low)}" if high is None else f"{spread(low)} to {spread(high)}"


def comparison_markdown(found: Comparison) -> str:
    """For a pull request: the answer, what became worse or better, and everything else folded away."""
    lines = [f"**{found.result.upper()}**", "", *bullets(found.reasons), *bullets(found.notes)]
    shown = [one for one in found.differences if one.outcome in ("regression", "improvement")]
    lines += _table(shown) if shown else []
    lines += ["<details><summary>All figures</summary>", "", *_table(found.differences), "</details>", ""]
    return "\n".join(lines)


def _table(differences: list[Difference]) -> list[str]:
    rows = [
        [one.scope, one.title, value_text(one, one.base.value), value_text(one, one.new.value), change_text(one),
         interval_text(one), one.outcome]
        for one in differences
    ]
    return md_table(["model", "figure", "base", "new", "change", "95% interval", ""], rows)


def comparison_junit(found: Comparison) -> str:
    """A case per figure; regressions fail, what could not be told is skipped with its reason."""
    cases = [Case("runs", "both runs are valid", failure="; ".join(found.reasons) if found.result == "invalid" else "")]
    for one in found.differences:
        name = f"{plain_text(one.title)} not worse by more than {_BY_KEY[one.key].spread(one.threshold)}"
        told = f"{value_text(one, one.base.value)} → {value_text(one, one.new.value)}, {change_text(one)}"
        if found.result == "invalid":
            cases.append(Case(one.scope, name, skipped="one of the runs is invalid"))
        elif one.outcome == "regression":
            cases.append(Case(one.scope, name, failure=f"{sentence(one)} ({told})"))
        elif one.outcome == "undecided":
            cases.append(Case(one.scope, name, skipped=f"too few requests to tell: {told}"))
        else:
            cases.append(Case(one.scope, name))
    return junit_xml("loadtest.compare", cases)
