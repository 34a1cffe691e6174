"""Which part of a run its figures are of.

Of a plain run everything after the warm-up; of an interference run its passes with the whole mix; of a sweep the step
at the highest rate that met the objectives, or its first one where none did. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loadtests.records import Record
from loadtests.runinfo import RunInfo

_BLOCKS = 24


@dataclass(frozen=True, slots=True)
class Window:
    """Measured stretches of a run, run seconds; stages: names of the stages that they are, None for all."""

    spans: tuple[tuple[float, float], ...]
    stages: frozenset[str] | None

    @property
    def length_s(self) -> float:
        return sum(end - start for start, end in self.spans)

    def records(self, records: Iterable[Record]) -> list[Record]:
        """What was measured, in the order of sending."""
        found = [r for r in records if not r.warmup and (self.stages is None or r.stage in self.stages)]
        return sorted(found, key=lambda record: record.sent)

    def blocks(self) -> list[tuple[float, float]]:
        """The window in about two dozen blocks of equal length, none shorter than half a second."""
        size = max(0.5, self.length_s / _BLOCKS)
        found = []
        for start, end in self.spans:
            count = max(1, round((end - start) / size))
            step = (end - start) / count
            found += [(start + n * step, start + (n + 1) * step) for n in range(count)]
        return found


def window_of(run: RunInfo) -> Window:
    """The measured window; an interrupted run ends it early."""
    if run.kind != "mix":
        return _of_passes(run)
    end = run.scenario.duration_s
    if run.interrupted:
        end = min(end, run.ended_unix - run.started_unix)
    start = min(run.scenario.warmup_s, end)
    # A run stopped within its warm-up measured nothing; any length avoids a division by zero.
    return Window(((start, end if end > start else start + 1.0),), None)


def _of_passes(run: RunInfo) -> Window:
    measured = [stage for stage in run.stages if stage.measured]
    if run.kind == "interference":
        chosen = [stage for stage in measured if stage.kind == "mix"]
    else:
        chosen = [stage for stage in measured if stage.name == _best_step(run)]
    chosen = chosen or measured[:1]
    spans = tuple((stage.start_s, max(stage.end_s, stage.start_s + 1e-3)) for stage in chosen)
    return Window(spans or ((0.0, 1.0),), frozenset(stage.name for stage in chosen))


def _best_step(run: RunInfo) -> str | None:
    """Name of the stage at the highest rate that met the objectives; of several at one rate the last."""
    if run.sweep is None or run.sweep.highest_met_per_s is None:
        return None
    best: Sequence[str] = [
        step.stage for step in run.sweep.steps if step.met and step.rate_per_s == run.sweep.highest_met_per_s
    ]
    return best[-1] if best else None
