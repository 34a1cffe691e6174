"""Reserve and settle, whatever comes in whatever order: nothing is lost, nothing counts twice, no limit is passed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.fleet import quotas
from serving.fleet.quotas import DONE_S, LEASE_S, Book, Granted, Lease, Part, Refused, Unseeded, Want

NOW = 1_764_000_000.0
RATE, SEATS, MONEY = ("t/tokens", "rate"), ("t/seats", "seats"), ("t/usd/day/2026-11-25", "money")


def rate(amount: int, least: int | None = None, most: int = 100) -> Want:
    return Want(RATE[0], "rate", most, amount, amount if least is None else least)


def seat(most: int = 2) -> Want:
    return Want(SEATS[0], "seats", most, 1, 1)


def money(amount: int, least: int = 1, most: int = 1_000) -> Want:
    return Want(MONEY[0], "money", most, amount, least)


def used(book: Book, counter: tuple[str, str], now: float = NOW) -> int:
    return book.used([counter], now)[0]  # type: ignore[list-item]


def seeded(spent: int = 0) -> Book:
    book = Book()
    book.seed(MONEY[0], spent, NOW)
    return book


def test_a_reservation_holds_the_most_and_settles_to_the_truth() -> None:
    book = seeded(100)
    answer = book.reserve("a", [rate(60), seat(), money(500)], NOW)
    assert isinstance(answer, Granted) and [line.granted for line in answer.lines] == [60, 1, 500]
    assert [used(book, c) for c in (RATE, SEATS, MONEY)] == [60, 1, 600]
    assert book.settle("a", [Part(RATE[0], "rate", 7), Part(SEATS[0], "seats", 1), Part(MONEY[0], "money", 42)], NOW)
    assert [used(book, c) for c in (RATE, SEATS, MONEY)] == [7, 0, 142]


def test_all_or_nothing() -> None:
    book = seeded()
    book.reserve("a", [rate(60)], NOW)
    answer = book.reserve("b", [money(10), seat(), rate(60)], NOW)
    assert isinstance(answer, Refused) and (answer.at, answer.used) == (2, 60)
    assert [used(book, c) for c in (RATE, SEATS, MONEY)] == [60, 0, 0]


def test_less_is_granted_where_less_will_do() -> None:
    book = seeded()
    book.reserve("a", [rate(70), money(900)], NOW)
    answer = book.reserve("b", [rate(60, least=10), money(500)], NOW)
    assert isinstance(answer, Granted) and [line.granted for line in answer.lines] == [30, 100]
    assert isinstance(book.reserve("c", [money(500)], NOW), Refused), "nothing is left"


def test_money_that_no_one_has_seeded_is_not_known() -> None:
    book = Book()
    assert book.reserve("a", [rate(1), money(1)], NOW) == Unseeded((MONEY[0],))
    assert used(book, RATE) == 0
    book.settle("x", [Part(MONEY[0], "money", 5)], NOW)  # the ledger has it, so the seed will
    book.seed(MONEY[0], 5, NOW)
    book.seed(MONEY[0], 99, NOW)
    assert used(book, MONEY) == 5


def test_a_second_settlement_changes_nothing() -> None:
    book = seeded()
    book.reserve("a", [money(500)], NOW)
    assert book.settle("a", [Part(MONEY[0], "money", 42)], NOW)
    assert not book.settle("a", [Part(MONEY[0], "money", 42)], NOW + DONE_S - 1)
    assert used(book, MONEY) == 42


def test_no_more_settlements_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "DONE_MOST", 3)
    book = Book()
    for name in "abcd":
        assert book.settle(name, [], NOW)
    assert list(book._done) == ["b", "c", "d"]


def test_what_the_book_does_not_know_is_added_as_it_is() -> None:
    book = seeded()
    assert book.settle("offline", [Part(MONEY[0], "money", 42), Part(RATE[0], "rate", 3)], NOW)
    assert (used(book, MONEY), used(book, RATE)) == (42, 3)


def test_what_a_settlement_does_not_name_was_not_used() -> None:
    book = seeded()
    book.reserve("a", [rate(5), seat(), money(7)], NOW)
    book.settle("a", [], NOW)
    assert [used(book, c) for c in (RATE, SEATS, MONEY)] == [0, 0, 0]


def test_to_ask_again_changes_nothing() -> None:
    book = seeded()
    first = book.reserve("a", [rate(60), money(500)], NOW)
    assert book.reserve("a", [rate(60), money(500)], NOW) == first
    assert (used(book, RATE), used(book, MONEY)) == (60, 500)


def test_a_refusal_says_when_it_would_fit() -> None:
    book = Book()
    book.reserve("a", [rate(50)], NOW)
    book.reserve("b", [rate(50)], NOW + 10)
    answer = book.reserve("c", [rate(40)], NOW + 20)
    assert isinstance(answer, Refused)
    assert isinstance(book.reserve("c", [rate(40)], NOW + 20 + answer.retry_s - 0.001), Refused)
    assert isinstance(book.reserve("c", [rate(40)], NOW + 20 + answer.retry_s), Granted)


def test_the_dead_give_their_seats_back_and_are_named() -> None:
    book = seeded()
    book.reserve("dead", [seat(1), money(500)], NOW)
    assert isinstance(book.reserve("b", [seat(1)], NOW + LEASE_S - 1), Refused)
    assert book.overdue(NOW + LEASE_S - 1) == []
    assert isinstance(book.reserve("b", [seat(1)], NOW + LEASE_S), Granted)
    (late,) = book.overdue(NOW + LEASE_S)
    assert (late.request_id, late.counters) == ("dead", (SEATS, MONEY))
    assert used(book, MONEY, NOW + LEASE_S) == 500, "it may have been spent"
    book.settle("dead", [Part(MONEY[0], "money", 3)], NOW + LEASE_S)
    assert used(book, MONEY, NOW + LEASE_S) == 3


def test_who_renews_stays() -> None:
    book = Book()
    book.reserve("a", [seat(1)], NOW)
    book.renew([Lease("a", (SEATS[0],))], NOW + LEASE_S - 1)
    assert isinstance(book.reserve("b", [seat(1)], NOW + LEASE_S + 5), Refused)
    book.settle("a", [Part(SEATS[0], "seats", 1)], NOW + LEASE_S + 6)
    book.renew([Lease("a", (SEATS[0],))], NOW + LEASE_S + 7)
    assert used(book, SEATS, NOW + LEASE_S + 7) == 0, "what has ended takes no seat again"


def test_a_book_that_has_lost_its_memory_learns_who_is_there() -> None:
    book = Book()
    book.renew([Lease("a", (SEATS[0],))], NOW)
    assert isinstance(book.reserve("b", [seat(1)], NOW), Refused)
    book.settle("a", [Part(SEATS[0], "seats", 1)], NOW)
    assert isinstance(book.reserve("b", [seat(1)], NOW), Granted)


@given(st.floats(-10 * 86_400, -1))
def test_when_the_clock_jumps_back_what_was_counted_counts_for_a_minute_more(jump: float) -> None:
    book = seeded()
    book.reserve("a", [rate(100), seat(1), money(1)], NOW)
    then = NOW + jump
    assert isinstance(book.reserve("b", [rate(1)], then), Refused)
    assert isinstance(book.reserve("b", [seat(1)], then), Refused)
    assert [late.request_id for late in book.overdue(then)] == ["a"], "its owner renews it, or is gone"
    assert isinstance(book.reserve("b", [rate(100), seat(1)], then + 62), Granted), "no longer than usual"


def test_a_settlement_after_a_jump_back_finds_what_it_held() -> None:
    book = Book()
    book.reserve("a", [rate(100)], NOW)
    assert used(book, RATE, NOW - 500) == 100
    book.settle("a", [Part(RATE[0], "rate", 4)], NOW - 500)
    assert used(book, RATE, NOW - 500) == 4


@given(st.floats(1, 10 * 86_400))
def test_when_the_clock_jumps_ahead_at_most_one_limit_more_is_let_through(jump: float) -> None:
    book = Book()
    granted = sum(isinstance(book.reserve(f"a{n}", [rate(10)], NOW), Granted) for n in range(20))
    granted += sum(isinstance(book.reserve(f"b{n}", [rate(10)], NOW + jump), Granted) for n in range(20))
    granted += sum(isinstance(book.reserve(f"c{n}", [rate(10)], NOW), Granted) for n in range(20))
    assert granted <= 20


class Histories(RuleBasedStateMachine):
    """Any interleaving of requests, crashes, retries and time."""

    @initialize()
    def begin(self) -> None:
        self.book, self.now, self.number = seeded(17), NOW, 0
        self.open: dict[str, list[int]] = {}  # granted by line
        self.dead: dict[str, list[int]] = {}
        self.settled: dict[str, tuple[int, int]] = {}
        self.counted: list[tuple[float, int, str]] = []  # when, tokens, whose

    @rule(tokens=st.integers(1, 60), least=st.integers(0, 60), amount=st.integers(1, 400))
    def reserve(self, tokens: int, least: int, amount: int) -> None:
        self.number += 1
        name = f"r{self.number}"
        answer = self.book.reserve(name, [money(amount), rate(tokens, min(least, tokens)), seat(3)], self.now)
        if isinstance(answer, Granted):
            self.open[name] = [line.granted for line in answer.lines]
            self.counted.append((self.now, answer.lines[1].granted, name))

    @precondition(lambda self: self.open or self.dead)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """By its gateway, or by another one that found out what the dead had used."""
        name = data.draw(st.sampled_from(sorted({*self.open, *self.dead})))
        granted = self.open.pop(name, None) or self.dead.pop(name)
        tokens, amount = data.draw(st.integers(0, granted[1])), data.draw(st.integers(0, 500))
        assert self.book.settle(name, self._parts(tokens, amount), self.now)
        self.settled[name] = (tokens, amount)

    @precondition(lambda self: self.settled)
    @rule(data=st.data(), amount=st.integers(0, 500))
    def settle_again(self, data: st.DataObject, amount: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.settled)))
        assert not self.book.settle(name, self._parts(50, amount), self.now)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        self.dead[name] = self.open.pop(name)

    @rule(seconds=st.floats(0, 20))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.book.renew([Lease(name, (SEATS[0],)) for name in self.open], self.now)

    @invariant()
    def money_adds_up(self) -> None:
        if not hasattr(self, "book"):
            return
        purse = self.book._purses[MONEY[0]]
        assert purse.spent == 17 + sum(amount for _, amount in self.settled.values())
        assert purse.held == sum(granted[0] for granted in [*self.open.values(), *self.dead.values()])
        assert purse.held >= 0

    @invariant()
    def no_minute_sees_more_than_the_limit(self) -> None:
        if not hasattr(self, "book"):
            return
        of = {name: granted[1] for name, granted in [*self.open.items(), *self.dead.items()]}
        of |= {name: tokens for name, (tokens, _) in self.settled.items()}
        last = sum(of[name] for at, _, name in self.counted if at > self.now - 60)
        assert last <= used(self.book, RATE, self.now) <= 100

    @invariant()
    def seats_are_those_of_the_living(self) -> None:
        if hasattr(self, "book"):
            assert len(self.open) <= used(self.book, SEATS, self.now) <= 3

    def _parts(self, tokens: int, amount: int) -> list[Part]:
        return [Part(RATE[0], "rate", tokens), Part(SEATS[0], "seats", 1), Part(MONEY[0], "money", amount)]


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_what_is_over_is_forgotten() -> None:
    book = Book()
    for n in range(2_000):
        now = NOW + n
        book.reserve(f"a{n}", [Want(f"k{n}", "rate", 5, 1, 1), Want(f"s{n}", "seats", 5, 1, 1)], now)
        book.settle(f"a{n}", [Part(f"k{n}", "rate", 1), Part(f"s{n}", "seats", 1)], now)
    assert len(book._rates) < 200 and len(book._seats) < 200 and len(book._done) <= DONE_S + 1


@pytest.mark.parametrize("kind", ["rate", "seats", "money"])
def test_a_limit_of_nothing_lets_nothing_through(kind: str) -> None:
    book = Book()
    book.seed("k", 0, NOW)
    assert isinstance(book.reserve("a", [Want("k", kind, 0, 1, 1)], NOW), Refused)  # type: ignore[arg-type]
