"""The playground passes a request on and its answer back, and nothing stays of either."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import console_rig
import fake_api
import httpx
import pytest
from console_rig import Rig
from fake_api import FakeApi

ASKED = {"model": "qwen", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9, "temperature": 0.5}
http = httpx.Client(trust_env=False, verify=False, timeout=10)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api.running() as made:
        yield made


@pytest.fixture
def rig(tmp_path: Path, api: FakeApi) -> Iterator[Rig]:
    with console_rig.running(tmp_path, api=api.url) as made:
        yield made


def headers(rig: Rig, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {rig.key}"} | more


def test_an_answer_streams_through_with_its_id(rig: Rig, api: FakeApi) -> None:
    answer = http.post(f"{rig.url}chat", json=ASKED, headers=headers(rig))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-flotilla-request-id"] == "flo-1"
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]" and json.loads(events[-2])["usage"]["cost"] == 0.0000021
    assert json.loads(events[-3])["choices"][0]["delta"]["content"] == "wörd11 "
    body, key = api.asked[0]
    assert body == ASKED | {"stream": True, "stream_options": {"include_usage": True}} and key == rig.key


def test_another_key_may_call_the_models(rig: Rig, api: FakeApi) -> None:
    http.post(f"{rig.url}chat", json=ASKED, headers=headers(rig, **{"x-console-key": "flt_caller"}))
    assert api.asked[0][1] == "flt_caller"
    answer = http.post(f"{rig.url}chat", json=ASKED, headers=headers(rig, **{"x-console-key": "flt_refused"}))
    assert answer.status_code == 403 and "may not call models" in answer.text


def test_who_leaves_frees_the_gateway(rig: Rig, api: FakeApi) -> None:
    api.words, api.pause_s = 10_000, 0.005
    with http.stream("POST", f"{rig.url}chat", json=ASKED, headers=headers(rig)) as answer:
        assert next(answer.iter_bytes())
    assert api.left.wait(5), "the gateway is not left"


@pytest.mark.parametrize(("change", "says"), [
    ({"max_tokens": 0}, "max_tokens"), ({"messages": []}, "messages"), ({"tools": []}, "tools"),
    ({"model": ""}, "model")])
def test_what_is_wrong_is_named_before_anyone_is_asked(rig: Rig, api: FakeApi, change: dict[str, Any], says: str
                                                       ) -> None:
    answer = http.post(f"{rig.url}chat", json=ASKED | change, headers=headers(rig))
    assert answer.status_code == 400 and says in answer.text and not api.asked


def test_only_an_admin_may(rig: Rig, api: FakeApi) -> None:
    for key, status in ((rig.plain_key, 403), ("flt_none", 401)):
        answer = http.post(f"{rig.url}chat", json=ASKED, headers={"authorization": f"Bearer {key}",
                                                                  "x-console-key": rig.key})
        assert answer.status_code == status
    assert not api.asked


def test_an_api_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with console_rig.running(tmp_path) as rig:
        answer = http.post(f"{rig.url}chat", json=ASKED, headers=headers(rig))
        assert answer.status_code == 502 and "does not answer" in answer.text
