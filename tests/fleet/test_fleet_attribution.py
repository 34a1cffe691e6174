"""Attribution's promises, over generated histories of a replica."""

from __future__ import annotations

import os
import random as rng
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.fleet.attribution import ReplicaMeter, Work
from serving.fleet.loading import LoadingPolicy
from serving.fleet.money import NS_PER_HOUR, PriceLine
from serving.fleet.stepmodel import StepModel

TRACES = int(os.environ.get("FLOTILLA_TRACES", "100"))  # of each property; the README names the long run
PRICE = 2_950_000_000  # an H100 at $2.95 an hour
NAMES = "abcdefgh"


@dataclass(frozen=True)
class Ready:
    at: int


@dataclass(frozen=True)
class Quiet:
    at: int


@dataclass(frozen=True)
class Ran:
    start: int
    end: int
    works: tuple[Work, ...]


TIMES = st.integers(0, 10**11)
@dataclass(frozen=True)
class Ended:
    name: str


@dataclass(frozen=True)
class Price:
    at: int
    nanousd_per_hour: int


@st.composite
def works_of(draw) -> Work:
    tokens = draw(st.one_of(st.just(1), st.integers(1, 8192)))
    phase = draw(st.sampled_from(["decode", "prefill", "recompute"]))
    lost = 0 if phase == "prefill" else draw(st.one_of(st.just(0), st.integers(0, tokens)))
    return Work(draw(st.sampled_from(NAMES)), tokens, draw(st.integers(0, 131_072)), phase, lost)


WORKS = st.lists(works_of(), max_size=6, unique_by=lambda w: w.request_id).map(tuple)
EVENTS = st.one_of(
    st.builds(Ready, TIMES),
    st.builds(Quiet, TIMES),
    # Start and end are drawn on their own: steps overlap, lie within each other and even end before they begin.
    st.builds(Ran, TIMES, TIMES, WORKS),
    st.builds(Ran, TIMES, TIMES, WORKS),
    st.builds(Ended, st.sampled_from(NAMES)),
    st.builds(Price, TIMES, st.integers(0, 10**10)),
)
PROMPTS = st.one_of(st.integers(2, 16), st.integers(2, 60_000))
HISTORIES = st.lists(EVENTS, max_size=30)
SAME_PRICE = st.lists(EVENTS.filter(lambda e: not isinstance(e, Price)), max_size=30)
LOADING = LoadingPolicy(3.0, 60.0)


def play(history, price: int = PRICE, started: int = 0, model: StepModel | None = None) -> ReplicaMeter:
    meter = ReplicaMeter(PriceLine.fixed(price), started, started / 1e9, LOADING, model)
    for event in history:
        happen(meter, event)
    return meter


def happen(meter: ReplicaMeter, event) -> None:
    match event:
        case Ready(at):
            meter.ready(at)
        case Quiet(at):
            meter.quiet(at)
        case Ran(start, end, works):
            meter.step(start, end, list(works))
        case Ended(name):
            meter.ended(name)
        case Price(at, nanousd_per_hour):
            meter.account.reprice(at / 1e9, PriceLine.fixed(nanousd_per_hour))


def charges(meter: ReplicaMeter) -> dict[str, int]:
    return {name: charge.work for name, charge in meter.charges.items()}


def loaded(meter: ReplicaMeter) -> dict[str, tuple[int, int]]:
    return {name: (charge.idle, charge.cold_start) for name, charge in meter.charges.items()}


def intervals(meter: ReplicaMeter):
    return [i.record("r") for i in meter.account.changes()]


def assert_conserved(meter: ReplicaMeter) -> None:
    total, all_of = meter.account.total, meter.charges.values()
    assert sum(c.work for c in all_of) == total.busy_nanousd
    assert meter.total_nanousd == total.busy_nanousd + total.idle_nanousd + total.cold_nanousd
    assert total.cold_ns + total.idle_ns + total.busy_ns == total.elapsed_ns == meter.seen_ns - meter.account.started_ns
    assert all(min(c.work, c.lost, c.idle, c.cold_start, c.work - c.lost) >= 0 for c in all_of)
    assert min(total.idle_nanousd, total.cold_nanousd) >= 0
    assert sum(c.idle for c in all_of) + meter.pool.idle == total.idle_nanousd
    assert sum(c.cold_start for c in all_of) + meter.pool.cold_start == total.cold_nanousd
    assert all(c.idle + c.cold_start <= 3 * c.work for c in all_of)
    assert all(sum(s.nanousd for s in c.trail.segments()) == c.work for c in all_of)


@settings(max_examples=TRACES)
@given(HISTORIES, st.integers(0, 10**13))
def test_intervals_add_up_to_the_integral_of_the_price(history, price: int) -> None:
    meter = play(history, price)
    rows = intervals(meter)
    owed = sum(row.price_nanousd_per_hour * row.elapsed_ns for row in rows)
    assert owed // NS_PER_HOUR == meter.total_nanousd
    assert sum(row.elapsed_ns for row in rows) == meter.seen_ns
    assert sum(row.busy_nanousd + row.idle_nanousd + row.cold_nanousd for row in rows) == meter.total_nanousd
    assert [row.starts_at for row in rows] == sorted({row.starts_at for row in rows})


@settings(max_examples=TRACES)
@given(HISTORIES, st.integers(0, 10**13), st.integers(0, 10**10))
def test_everything_adds_up_to_the_bill_at_every_moment(history, price: int, started: int) -> None:
    meter = ReplicaMeter(PriceLine.fixed(price), started, started / 1e9, LOADING)
    for event in history:
        happen(meter, event)
        assert_conserved(meter)


@given(HISTORIES)
def test_time_never_runs_backwards_and_nothing_booked_shrinks(history) -> None:
    meter, seen, before = ReplicaMeter(PriceLine.fixed(PRICE), 0), 0, {}
    for event in history:
        happen(meter, event)
        assert meter.seen_ns >= seen
        assert all(charges(meter)[name] >= amount for name, amount in before.items())
        seen, before = meter.seen_ns, charges(meter)


def test_a_clock_from_before_the_start_books_nothing() -> None:
    meter = ReplicaMeter(PriceLine.fixed(PRICE), 1_000)
    meter.quiet(10)
    assert (meter.seen_ns, meter.total_nanousd) == (1_000, 0)


@given(HISTORIES.filter(lambda h: not any(isinstance(e, Ready) for e in h)))
def test_before_ready_everything_is_cold_start(history) -> None:
    meter = play(history)
    assert meter.account.total.cold_nanousd == meter.total_nanousd
    assert not meter.charges


def test_steps_without_work_are_idle_time() -> None:
    meter = play([Ready(0), Ran(0, 10**9, ())])
    total = meter.account.total
    assert (total.idle_ns, total.busy_ns, total.idle_nanousd) == (10**9, 0, meter.total_nanousd)


def test_a_gap_between_steps_is_idle_and_an_overlap_is_paid_once() -> None:
    one, two = Work("a", 8, 0), Work("b", 8, 0)
    meter = play([Ready(100), Ran(200, 500, (one,)), Ran(400, 900, (two,)), Ran(450, 800, (one,))])
    total = meter.account.total
    assert (total.cold_ns, total.idle_ns, total.busy_ns, meter.seen_ns) == (100, 100, 700, 900)
    assert meter.charges["a"].steps == 1, "the last step lies within what is booked"
    price = 3_600 * 10**9  # a nano-dollar for a nanosecond
    meter = play([Ready(100), Ran(200, 500, (one,)), Ran(400, 900, (two,)), Ran(450, 800, (one,))], price)
    assert charges(meter) == {"a": 300, "b": 400}


def test_ready_twice_changes_nothing() -> None:
    meter = play([Ready(50), Quiet(70)])
    meter.ready(90)
    total = meter.account.total
    assert (meter.ready_ns, meter.seen_ns, total.cold_ns, total.idle_ns) == (50, 70, 50, 20)


def state(meter: ReplicaMeter):
    """Everything that a ledger or a caller can see of a meter."""
    told = {n: (c.amounts("finished"), c.steps, c.recomputed, c.rejected, c.method) for n, c in meter.charges.items()}
    return told, meter.seen_ns, [replace(i, starts_at=0) for i in intervals(meter)], meter.fitter.fit()


@settings(max_examples=TRACES)
@given(HISTORIES, st.randoms(use_true_random=False))
def test_the_order_within_a_step_does_not_matter(history, random: rng.Random) -> None:
    def shuffled(event):
        return replace(event, works=tuple(random.sample(event.works, len(event.works)))) if isinstance(
            event, Ran) else event

    assert state(play(history)) == state(play([shuffled(e) for e in history]))


@settings(max_examples=TRACES)
@given(HISTORIES, st.data())
def test_requests_that_do_the_same_cost_the_same(history, data) -> None:
    """However long: what rounding owes is carried on, so that no one is the one who always pays the odd nano-dollar."""
    twins = [replace(e, works=(*e.works, *(replace(w, request_id="twin") for w in e.works if w.request_id == "a")))
             if isinstance(e, Ran) else e for e in history if not isinstance(e, Ended)]
    paid = charges(play(twins))
    assert abs(paid.get("twin", 0) - paid.get("a", 0)) <= 1


def test_rounding_favours_no_one_on_a_cheap_machine() -> None:
    works = tuple(Work(f"{n:032x}", 1, 100) for n in range(64))
    steps = [Ran(at, at + 3_000_000, works) for at in range(0, 600_000_000, 3_000_000)]
    paid = charges(play([Ready(0), *steps], 41_600_000)).values()
    assert max(paid) - min(paid) <= 1 and sum(paid) > 64


@settings(max_examples=TRACES)
@given(HISTORIES, st.lists(TIMES, max_size=8), TIMES)
def test_splitting_a_quiet_window_changes_nothing(history, cuts: list[int], end: int) -> None:
    whole, split = play(history), play(history)
    whole.quiet(end)
    for at in sorted(min(cut, end) for cut in cuts):
        split.quiet(at)
    split.quiet(end)
    assert state(whole) == state(split)


@settings(max_examples=TRACES)
@given(SAME_PRICE, st.integers(0, 10**12), st.integers(2, 50))
def test_charges_grow_in_step_with_the_price(history, price: int, times: int) -> None:
    once, more = play(history, price), play(history, price * times)
    steps = sum(isinstance(e, Ran) for e in history)
    for name, amount in charges(once).items():
        # each interval's bill is rounded down once and its shares once more
        assert abs(charges(more)[name] - times * amount) <= 2 * times * max(1, steps)


@given(WORKS.filter(bool), st.integers(1, 10**10), PROMPTS, st.integers(0, 130_000), st.data())
@settings(max_examples=2 * TRACES)
def test_a_cached_prompt_never_costs_more_than_an_uncached_one(
    others, duration, tokens, context, data
) -> None:
    cached = data.draw(st.integers(1, tokens - 1), "cached")
    paid = [
        charges(play([Ready(0), Ran(0, duration, (*others, Work("me", *mine)))], 10**13))["me"]
        for mine in ((tokens - cached, context + cached), (tokens, context))
    ]
    assert paid[0] <= paid[1] + 1  # one nano-dollar of rounding


@given(WORKS.filter(bool), st.integers(1, 10**10), PROMPTS, st.integers(0, 130_000), st.data())
@settings(max_examples=2 * TRACES)
def test_fewer_tokens_on_the_same_context_never_cost_more(others, duration, tokens, context, data) -> None:
    fewer = data.draw(st.one_of(st.just(1), st.integers(1, tokens)), "fewer")
    paid = [
        charges(play([Ready(0), Ran(0, duration, (*others, Work("me", n, context)))], 10**13))["me"]
        for n in (fewer, tokens)
    ]
    assert paid[0] <= paid[1] + 1


@given(WORKS.filter(lambda w: len(w) > 1), st.integers(10**6, 10**10))
def test_each_pays_for_no_less_than_its_part_of_the_fixed_cost(works, duration: int) -> None:
    """The Shapley value of the fixed part is an equal part; with nothing else in the model all pay the same."""
    paid = charges(play([Ready(0), Ran(0, duration, works)], 10**13, model=StepModel(1.0, 0.0, 0.0, 0.0)))
    assert max(paid.values()) - min(paid.values()) <= 1


def test_what_a_token_and_its_context_weigh() -> None:
    model = StepModel(fixed=0.0, token=1.0, attention=0.0, cache=0.0)
    paid = charges(play([Ready(0), Ran(0, 3_600, (Work("a", 1, 0), Work("b", 3, 0)))], 10**12, model=model))
    assert paid == {"a": 250, "b": 750}
    model = StepModel(fixed=0.0, token=0.0, attention=0.0, cache=1.0)
    paid = charges(
        play([Ready(0), Ran(0, 3_600, (Work("a", 1, 100), Work("b", 1, 300)))], 10**12, model=model)
    )
    assert paid == {"a": 250, "b": 750}


@given(WORKS.filter(bool), st.integers(1, 10**10), st.sampled_from(["finished", "running", "aborted", "failed"]))
def test_an_abort_keeps_what_it_has_cost(works, duration: int, outcome) -> None:
    meter = play([Ready(0), Ran(0, duration, works)])
    for charge in meter.charges.values():
        amounts = charge.amounts(outcome)
        assert amounts.work == charge.work
        assert outcome in ("finished", "running") or amounts.direct == 0


def test_computing_again_what_was_computed_before_is_waste() -> None:
    model = StepModel(fixed=0.0, token=1.0, attention=0.0, cache=0.0)
    again = Work("a", 100, 0, "recompute", 100)
    charge = play([Ready(0), Ran(0, 3_600_000, (again, Work("b", 100, 0)))], 10**12, model=model).charges["a"]
    assert (charge.work, charge.lost, charge.recomputed) == (500_000, 500_000, 100)
    half = Work("a", 100, 0, "recompute", 50)
    charge = play([Ready(0), Ran(0, 3_600_000, (half,))], 10**12, model=model).charges["a"]
    assert (charge.work, charge.lost, charge.recomputed) == (1_000_000, 500_000, 50)


def test_rejected_drafts_are_waste_as_far_as_they_cost_more() -> None:
    drafts = Work("a", 5, 1_000, "decode", 4)
    free = StepModel(fixed=1.0, token=0.0, attention=0.0, cache=0.0)  # a step costs the same with and without them
    charge = play([Ready(0), Ran(0, 3_600_000, (drafts,))], 10**12, model=free).charges["a"]
    assert (charge.lost, charge.rejected) == (0, 4)
    dear = StepModel(fixed=0.0, token=1.0, attention=0.0, cache=0.0)
    charge = play([Ready(0), Ran(0, 3_600_000, (drafts,))], 10**12, model=dear).charges["a"]
    assert charge.lost == 800_000


def test_a_price_change_splits_a_step_at_its_moment() -> None:
    line = PriceLine(((0.0, 3_600 * 10**9), (1.5, 7_200 * 10**9)))  # 1, then 2 nano-dollars for a nanosecond
    meter = ReplicaMeter(line, 0, 0.0)
    meter.ready(0)
    meter.step(10**9, 2 * 10**9, [Work("a", 1, 0)])
    assert charges(meter) == {"a": 1_500_000_000}
    assert meter.account.total.idle_nanousd == 10**9
    before, after = intervals(meter)
    assert (before.starts_at, before.busy_ns, after.starts_at, after.busy_nanousd) == (0.0, 5 * 10**8, 1.5, 10**9)


def test_without_steps_the_time_is_shared_by_those_who_are_here() -> None:
    meter = ReplicaMeter(PriceLine.fixed(3_600 * 10**9), 0)
    meter.ready(0)
    meter.window(100, [])
    meter.window(300, ["a"])
    meter.window(500, ["a", "b"])
    assert charges(meter) == {"a": 300, "b": 100}
    assert {c.method for c in meter.charges.values()} == {"window"}
    assert_conserved(meter)


def test_a_row_names_the_weakest_method_that_it_was_made_with() -> None:
    meter = play([Ready(0), Ran(0, 100, (Work("old", 1, 0),))])
    for n in range(1, 400):
        meter.step(n * 100, n * 100 + 100, [Work("old", 1, n)])
    meter.step(40_000, 40_100, [Work("new", 1, 0)])
    assert meter.method == "step-shapley-fit"
    assert {n: c.method for n, c in meter.charges.items()} == {"old": "step-shapley-prior", "new": "step-shapley-fit"}


@given(st.integers(0, 700), st.integers(0, 3))
def test_what_explains_a_charge_stays_short_and_complete(decodes: int, preempted: int) -> None:
    meter, now = play([Ready(0)]), 0
    for turn in range(preempted + 1):
        for work in [Work("a", 64, 0, "recompute" if turn else "prefill", 0), *[Work("a", 1, 64)] * decodes]:
            meter.step(now, now + 1_000_000, [work, Work("b", 1, 0)])
            now += 1_000_000
    charge = meter.charges["a"]
    segments = charge.trail.segments()
    assert len(segments) <= 33
    assert sum(s.steps for s in segments) == (decodes + 1) * (preempted + 1) == charge.steps
    assert sum(s.tokens for s in segments) == (decodes + 64) * (preempted + 1)
    assert sum(s.nanousd for s in segments) == charge.work
    assert sum(s.shared for s in segments) == 2 * charge.steps


@settings(max_examples=TRACES)
@given(HISTORIES.filter(lambda h: not any(isinstance(e, Price) for e in h)), st.data())
def test_replaying_what_was_told_changes_nothing(history, data) -> None:
    again = [e for event in history for e in [event] * data.draw(st.integers(1, 3))]
    assert state(play(history)) == state(play(again))
    assert state(play(history)) == state(play([*history, *(e for e in history if isinstance(e, Ran))]))


@settings(max_examples=TRACES)
@given(HISTORIES, HISTORIES, st.randoms(use_true_random=False))
def test_replicas_side_by_side_are_the_sum_of_each(one, two, random: rng.Random) -> None:
    """A request that several replicas worked for pays what it pays on each, whichever way their steps interleave."""
    meters, waiting = (play([]), play([])), [list(one), list(two)]
    while any(waiting):
        at = random.choice([i for i in (0, 1) if waiting[i]])
        happen(meters[at], waiting[at].pop(0))
    alone = [play(one), play(two)]
    merged = {n: sum(charges(m).get(n, 0) for m in meters) for n in NAMES}
    assert merged == {n: sum(charges(m).get(n, 0) for m in alone) for n in NAMES}
    assert sum(m.total_nanousd for m in meters) == sum(m.total_nanousd for m in alone)
