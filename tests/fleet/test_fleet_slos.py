"""Which promises a request was eligible for, and which were kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from serving.fleet.records import RequestRecord, Tokens
from serving.fleet.slos import PROMISES, Slo, TenantSlo, kept, time_per_output_token_s

SLO = Slo(ttft_ms=500, tpot_ms=50)
WHOLE = RequestRecord("flo-1", "", "demo", "k1", "qwen", "chat_completions", 200, "finished", 0.0, 1.4, False)
# 20 tokens, the first after 0.45 s, the rest in 0.95 s: 50 ms each
STREAM = replace(WHOLE, stream=True, ttft_s=0.45, tokens=Tokens(10, 0, 20))


@pytest.mark.parametrize(("record", "expected"), [
    (WHOLE, {"availability": True, "goodput": True}),
    (STREAM, {"availability": True, "ttft": True, "tpot": True, "goodput": True}),
    (replace(STREAM, ttft_s=0.51), {"availability": True, "ttft": False, "tpot": True, "goodput": False}),
    (replace(STREAM, duration_s=1.5), {"availability": True, "ttft": True, "tpot": False, "goodput": False}),
    (replace(STREAM, tokens=Tokens(10, 0, 1)), {"availability": True, "ttft": True, "goodput": True}),
    (replace(STREAM, tokens=None), {"availability": True, "ttft": True, "goodput": True}),
    (replace(WHOLE, code=503, outcome="failed"), {"availability": False, "goodput": False}),
    (replace(STREAM, code=503, outcome="failed", ttft_s=None, tokens=None),
     {"availability": False, "ttft": False, "goodput": False}),
    (replace(STREAM, outcome="failed", tokens=Tokens(10, 0, 3)),
     {"availability": False, "ttft": True, "goodput": False}),
], ids=["whole", "stream", "late", "slow", "one-token", "no-usage", "refused", "refused-stream", "broken-stream"])
def test_what_was_kept(record: RequestRecord, expected: dict[str, bool]) -> None:
    assert kept(record, SLO) == expected


@pytest.mark.parametrize("code", [400, 401, 404, 429, 499])
def test_what_callers_spoil_says_nothing_about_the_fleet(code: int) -> None:
    assert kept(replace(STREAM, code=code, outcome="rejected"), SLO) == {}


def test_the_first_token_is_not_counted_in_the_pace() -> None:
    assert time_per_output_token_s(STREAM) == pytest.approx(0.05)
    assert time_per_output_token_s(replace(STREAM, outcome="aborted")) is None


def test_objectives() -> None:
    slo = Slo(ttft_ms=500, tpot_ms=50, availability=0.99, latency=0.9, goodput=0.8)
    assert [slo.objective(p) for p in PROMISES] == [0.99, 0.9, 0.9, 0.8]
    for wrong in (0, 1, 1.5):
        with pytest.raises(ValidationError):
            Slo(ttft_ms=500, tpot_ms=50, availability=wrong)


def test_a_tenants_promises_are_the_models_but_for_what_they_say() -> None:
    slo = Slo(ttft_ms=500, tpot_ms=50, availability=0.99, tenants={"shop": TenantSlo(ttft_ms=200, goodput=0.95)})
    assert slo.own() == {"shop": Slo(ttft_ms=200, tpot_ms=50, availability=0.99, goodput=0.95)}
    assert kept(replace(STREAM, ttft_s=0.3), slo)["ttft"] and not kept(replace(STREAM, ttft_s=0.3),
                                                                       slo.own()["shop"])["ttft"]
    with pytest.raises(ValidationError, match="promises nothing of its own"):
        TenantSlo()
