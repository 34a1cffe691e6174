"""Who gets the page and who its data, and the fence around both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import console_rig
import httpx
import pytest
from console_rig import Rig

from serving.console.answers import PAGE, POLICY
from serving.ledger import keys

MOST_BYTES = 300_000
http = httpx.Client(trust_env=False, verify=False, timeout=10, limits=httpx.Limits(max_keepalive_connections=0))


def events(rig: Rig, key: str) -> Iterator[tuple[str, object]]:
    """Server-sent events, as they come."""
    with http.stream("GET", f"{rig.url}events", headers={"authorization": f"Bearer {key}"}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream" and answer.headers["cache-control"] == "no-store"
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def test_the_page_needs_no_key_and_says_nothing_of_the_fleet(rig: Rig) -> None:
    away = http.get(rig.url.removesuffix("/"))
    assert away.status_code == 308 and httpx.URL(rig.url.removesuffix("/")).join(away.headers["location"]) == rig.url
    for path in [f"page/{p.name}" for p in PAGE.iterdir()] + [""]:
        answer = http.get(rig.url + path)
        assert answer.status_code == 200 and "sample" not in answer.text and "qwen" not in answer.text
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = http.get(rig.url + path, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304 and not again.content


@pytest.mark.parametrize("name", ["none.js", "page/none.js", "page/../../routes.py", "page/%2e%2e/routes.py",
                                  "page/..%2froutes.py", "page/__init__.py"])
def test_nothing_but_the_page_is_served(rig: Rig, name: str) -> None:
    answer = http.get(rig.url + name)
    assert answer.status_code == 404 and "import" not in answer.text


def test_the_policy_allows_only_what_comes_from_here() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in POLICY.split(";"))
    assert rules["default-src"] == "'none'" and "unsafe" not in POLICY and "http" not in POLICY and "*" not in POLICY
    assert {rules[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}


def test_the_page_is_plain_small_and_holds_nothing_inline() -> None:
    files = [p for p in PAGE.iterdir() if p.is_file()]
    assert sum(p.stat().st_size for p in files) < MOST_BYTES
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page)
    for script in PAGE.glob("*.js"):
        text = script.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|localStorage|"
                             r"cookie|https?://(?!www\.w3\.org/2000/svg)", text), script.name


def test_only_an_admin_sees_the_fleet(rig: Rig) -> None:
    for headers, status in (({}, 401), ({"authorization": "Bearer flt_none"}, 401),
                            ({"authorization": f"Bearer {rig.plain_key}"}, 403)):
        answer = http.get(f"{rig.url}events", headers=headers)
        assert answer.status_code == status and "qwen" not in answer.text
    answer = http.get(f"{rig.url}events?key={rig.key}&authorization={rig.key}")
    assert answer.status_code == 401, "a key in a URL opens nothing"


def test_frames_come_as_events_and_the_past_first(rig: Rig) -> None:
    seen = events(rig, rig.key)
    assert next(seen) == ("past", [])
    for _ in range(3):
        name, now = next(seen)
        assert name == "now" and now["fleet"] == "sample" and len(now["models"]) == 4  # type: ignore[index]
    name, past = next(events(rig, rig.key))
    assert name == "past" and len(past) >= 2 and set(past[0]) == {"at", "models"}  # type: ignore[arg-type, index]


def test_a_page_ends_soon_after_its_key_was_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.console.routes._RECHECK_S", 0.1)
    with console_rig.running(tmp_path) as rig:
        seen = events(rig, rig.key)
        assert [next(seen)[0] for _ in range(8)] == ["past"] + ["now"] * 7
        keys.revoke(rig.ledger, "root", 3.0)
        left = list(seen)
        assert left[-1][0] == "refused" and "revoked" in left[-1][1]["message"]  # type: ignore[index]
        assert http.get(f"{rig.url}events", headers={"authorization": f"Bearer {rig.key}"}).status_code == 401


def test_thirty_pages_are_one_look_per_tick(rig: Rig) -> None:
    began = rig.fake.looks
    with ThreadPoolExecutor(30) as readers:
        found = list(readers.map(lambda _: [name for name, _ in islice(events(rig, rig.key), 8)], range(30)))
    assert all(names == ["past"] + ["now"] * 7 for names in found)
    assert rig.fake.looks - began < 100, "not seven for each page"
