"""Attribution's promises, over generated histories of a replica."""

from __future__ import annotations

import random as rng
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.fleet.attribution import ReplicaMeter, StepModel, Work
from serving.fleet.money import bill

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
WORKS = st.lists(
    st.builds(Work, st.sampled_from(NAMES), st.integers(1, 8192), st.integers(0, 131_072)),
    max_size=6,
    unique_by=lambda w: w.request_id,
).map(tuple)
EVENTS = st.one_of(
    st.builds(Ready, TIMES),
    st.builds(Quiet, TIMES),
    # Start and end are drawn on their own: steps overlap, lie within each other and even end before they begin.
    st.builds(Ran, TIMES, TIMES, WORKS),
)
PROMPTS = st.one_of(st.integers(2, 16), st.integers(2, 60_000))
HISTORIES = st.lists(EVENTS, max_size=30)


def play(history, price: int = PRICE, started: int = 0, model: StepModel | None = None) -> ReplicaMeter:
    meter = ReplicaMeter(price, started, model or StepModel())
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


def charges(meter: ReplicaMeter) -> dict[str, int]:
    return {name: charge.nanousd for name, charge in meter.charges.items()}


def assert_conserved(meter: ReplicaMeter) -> None:
    booked = sum(charges(meter).values()) + meter.idle_nanousd + meter.cold_nanousd
    assert (
        booked == meter.total_nanousd == bill(meter.price_nanousd_per_hour, meter.seen_ns - meter.started_ns)
    )
    assert meter.busy_nanousd == sum(charges(meter).values())
    assert meter.cold_ns + meter.idle_ns + meter.busy_ns == meter.seen_ns - meter.started_ns
    assert min(meter.idle_nanousd, meter.cold_nanousd, *charges(meter).values(), 0) == 0


@given(HISTORIES, st.integers(0, 10**13), st.integers(0, 10**10))
def test_everything_adds_up_to_the_bill_at_every_moment(history, price: int, started: int) -> None:
    meter = ReplicaMeter(price, started)
    for event in history:
        happen(meter, event)
        assert_conserved(meter)


@given(HISTORIES)
def test_time_never_runs_backwards_and_nothing_booked_shrinks(history) -> None:
    meter, seen, before = ReplicaMeter(PRICE, 0), 0, {}
    for event in history:
        happen(meter, event)
        assert meter.seen_ns >= seen
        assert all(charges(meter)[name] >= amount for name, amount in before.items())
        seen, before = meter.seen_ns, charges(meter)


def test_a_clock_from_before_the_start_books_nothing() -> None:
    meter = ReplicaMeter(PRICE, 1_000)
    meter.quiet(10)
    assert (meter.seen_ns, meter.total_nanousd) == (1_000, 0)


@given(HISTORIES.filter(lambda h: not any(isinstance(e, Ready) for e in h)))
def test_before_ready_everything_is_cold_start(history) -> None:
    meter = play(history)
    assert meter.cold_nanousd == meter.total_nanousd
    assert not meter.charges


def test_steps_without_work_are_idle_time() -> None:
    meter = play([Ready(0), Ran(0, 10**9, ())])
    assert (meter.idle_ns, meter.busy_ns, meter.idle_nanousd) == (10**9, 0, meter.total_nanousd)


def test_a_gap_between_steps_is_idle_and_an_overlap_is_paid_once() -> None:
    one, two = Work("a", 8, 0), Work("b", 8, 0)
    meter = play([Ready(100), Ran(200, 500, (one,)), Ran(400, 900, (two,)), Ran(450, 800, (one,))])
    assert (meter.cold_ns, meter.idle_ns, meter.busy_ns, meter.seen_ns) == (100, 100, 700, 900)
    assert (
        meter.charges["a"].steps == 2
    )  # the last step lies within what is booked: it counts and costs nothing
    price = 3_600 * 10**9  # a nano-dollar for a nanosecond
    meter = play([Ready(100), Ran(200, 500, (one,)), Ran(400, 900, (two,)), Ran(450, 800, (one,))], price)
    assert charges(meter) == {"a": 300, "b": 400}


def test_ready_twice_changes_nothing() -> None:
    meter = play([Ready(50), Quiet(70)])
    meter.ready(90)
    assert (meter.ready_ns, meter.seen_ns, meter.cold_ns, meter.idle_ns) == (50, 70, 50, 20)


@given(WORKS.filter(bool), st.integers(1, 10**10), st.integers(0, 10**13), st.randoms(use_true_random=False))
def test_the_order_of_a_step_does_not_matter(works, duration: int, price: int, random: rng.Random) -> None:
    mixed = list(works)
    random.shuffle(mixed)
    plain, moved = (play([Ready(0), Ran(0, duration, tuple(w))], price) for w in (works, mixed))
    assert sum(charges(plain).values()) == sum(charges(moved).values())
    assert all(abs(charges(plain)[n] - charges(moved)[n]) <= 1 for n in charges(plain))


@given(WORKS.filter(lambda w: len(w) > 1), st.integers(1, 10**10), st.integers(0, 10**13))
def test_equal_work_costs_the_same(works, duration: int, price: int) -> None:
    twin = Work("twin", works[0].tokens, works[0].context)
    paid = charges(play([Ready(0), Ran(0, duration, (*works, twin))], price))
    assert abs(paid["twin"] - paid[works[0].request_id]) <= 1


@given(HISTORIES, st.lists(TIMES, max_size=8), TIMES)
def test_splitting_a_quiet_window_changes_nothing(history, cuts: list[int], end: int) -> None:
    whole, split = play(history), play(history)
    whole.quiet(end)
    for at in sorted(min(cut, end) for cut in cuts):
        split.quiet(at)
    split.quiet(end)
    assert whole == split


@given(HISTORIES, st.integers(0, 10**12), st.integers(2, 50))
def test_charges_grow_in_step_with_the_price(history, price: int, times: int) -> None:
    once, more = play(history, price), play(history, price * times)
    steps = sum(isinstance(e, Ran) for e in history)
    for name, amount in charges(once).items():
        # each interval's bill is rounded down once and its shares once more
        assert abs(charges(more)[name] - times * amount) <= 2 * times * max(1, steps)


@given(WORKS.filter(bool), st.integers(1, 10**10), PROMPTS, st.integers(0, 130_000), st.data())
@settings(max_examples=200)
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
@settings(max_examples=200)
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
