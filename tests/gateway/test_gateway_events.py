"""Streams cut anywhere: whole events in order, nothing after an error, the last usage."""

from __future__ import annotations

import json

import pytest
from fake_replica import DONE, delta, event
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serving.gateway import usage
from serving.gateway.events import Events

TEXT = st.one_of(st.text(max_size=12), st.sampled_from([
    "data: [DONE]", '\n\ndata: {"error": 1}\n\n', "\nevent: error\n", '"usage":{"prompt_tokens":7}', "error", "\r\n",
    "\nevent: message_stop\n", "event: response.completed\n"]))
COUNTS = st.integers(0, 99)
PLAIN = st.one_of(
    st.builds(delta, TEXT),
    st.builds(lambda text, n: delta(text, usage={"prompt_tokens": n, "completion_tokens": 1, "cost": n / 8}),
              TEXT, COUNTS),
    st.builds(lambda text: b"event: response.output_text.delta\n" + event({"delta": text}), TEXT),
    st.builds(lambda n: b"event: message_delta\n" + event({"usage": {"input_tokens": n, "output_tokens": 2}}), COUNTS),
    st.just(b": still here\n\n"),
)
ASIDE = st.builds(lambda n: b": flotilla " + event({"choices": [], "usage": {"prompt_tokens": n}})[len(b"data: "):],
                  COUNTS)
ERROR = st.one_of(
    st.builds(lambda text: event({"error": {"message": text, "code": 500}}), TEXT),
    st.builds(lambda text: b"event: error\n" + event({"type": "error", "error": {"message": text}}), TEXT),
)
STREAMS = st.lists(st.one_of(PLAIN, PLAIN, PLAIN, ASIDE, ERROR, st.just(DONE)), max_size=8)
DIALECT = st.sampled_from(["openai", "responses", "messages"])


def is_error(each: bytes) -> bool:
    return each.startswith((b'data: {"error"', b"event: error\n"))


def up_to_error(events: list[bytes]) -> list[bytes]:
    at = next((n for n, each in enumerate(events) if is_error(each)), len(events))
    return events[: at + 1]


def is_aside(each: bytes) -> bool:
    return each.startswith(b": flotilla ")


def seen(events: list[bytes]) -> list[bytes]:
    """What a caller gets of a stream."""
    return [each for each in up_to_error(events) if not is_aside(each)]


def last_usage(events: list[bytes]) -> usage.Usage | None:
    """By parsing every event, which the gateway cannot afford."""
    for each in reversed(events):
        data = each.partition(b": flotilla " if is_aside(each) else b"data: ")[2]
        if data.startswith(b"{") and "usage" in (found := json.loads(data)):
            return usage.find(json.dumps({"usage": found["usage"]}, separators=(",", ":")).encode())
    return None


class Feeding(RuleBasedStateMachine):
    """A stream that arrives in pieces of any size."""

    @initialize(events=STREAMS, dialect=DIALECT)
    def begin(self, events: list[bytes], dialect: str) -> None:
        self.all, self.rest = events, b"".join(events)
        self.events, self.out = Events(dialect), b""  # type: ignore[arg-type]
        self.wanted, self.passed = seen(events), up_to_error(events)

    @rule(size=st.integers(1, 400))
    def feed(self, size: int) -> None:
        piece, self.rest = self.rest[:size], self.rest[size:]
        if piece:
            self.out += self.events.feed(piece)

    @invariant()
    def whole_events_and_no_more_than_wanted(self) -> None:
        if not hasattr(self, "all"):
            return
        at = 0
        for each in self.wanted:
            if len(self.out) < at + len(each):
                break
            at += len(each)
        assert self.out == b"".join(self.wanted)[:at]
        assert self.events.failed == (len(self.out) > 0 and is_error(self.wanted[-1])
                                      and len(self.out) == len(b"".join(self.wanted)))
        assert b": flotilla {" not in [line[:12] for line in self.out.split(b"\n")]

    @invariant()
    def nothing_is_kept_back(self) -> None:
        """Every event that is whole is out."""
        if not hasattr(self, "all"):
            return
        came = len(b"".join(self.all)) - len(self.rest)
        whole, ends = [], 0
        for each in self.passed:
            ends += len(each)
            if ends <= came and not is_aside(each):
                whole.append(each)
        assert self.out == b"".join(whole)

    def teardown(self) -> None:
        if not hasattr(self, "all"):
            return
        self.out += self.events.feed(self.rest) if self.rest else b""
        assert self.out == b"".join(self.wanted)
        assert self.events.rest() == b""
        assert self.events.usage() == last_usage(self.passed)


TestFeeding = Feeding.TestCase


@given(STREAMS, DIALECT, st.lists(st.integers(0, 4_000), max_size=20))
@example([delta("x"), event({"error": {"message": "y"}}), DONE], "openai", [1, 2, 3])
def test_any_cut_gives_the_same(events: list[bytes], dialect: str, cuts: list[int]) -> None:
    data = b"".join(events)
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    one, many = Events(dialect), Events(dialect)  # type: ignore[arg-type]
    whole = one.feed(data) if data else b""
    out = b"".join(many.feed(data[a:b]) for a, b in zip(edges, edges[1:], strict=False))
    assert out == whole == b"".join(seen(events))
    assert (one.failed, one.usage()) == (many.failed, many.usage())


@given(STREAMS, st.binary(min_size=1, max_size=30).filter(lambda b: b"\n" not in b))
def test_half_an_event_at_the_end_is_not_one(events: list[bytes], half: bytes) -> None:
    stream = Events("openai")
    assert stream.feed(b"".join(events) + half) == b"".join(seen(events))
    assert stream.rest() == (b"" if stream.failed else half)


LAST = {"openai": DONE, "messages": b"event: message_stop\n" + event({"type": "message_stop"}),
        "responses": b"event: response.completed\n" + event({"response": {"output": []}})}


@pytest.mark.parametrize("dialect", LAST)
@given(text=TEXT)
def test_only_its_own_last_event_makes_a_stream_whole(dialect: str, text: str) -> None:
    stream = Events(dialect)  # type: ignore[arg-type]
    for other, last in LAST.items():
        if other != dialect:
            stream.feed(last)
    stream.feed(delta(text))
    assert not stream.done
    stream.feed(delta(text) + LAST[dialect])
    assert stream.done


@pytest.mark.parametrize("end", ["incomplete", "failed", "cancelled"])
def test_other_ends_of_a_response(end: str) -> None:
    stream = Events("responses")
    stream.feed(b"event: response.%b\n" % end.encode() + event({"response": {"output": "x" * 9_000}}))
    assert stream.done
