"""Requests made from the published document against the live fleet: every answer is one that the document names.

A fleet that is well answers none of them with 500 to 503, answers each within 20 s, and is as well afterwards as
before. `./tests/run` sends a few; the whole check sends 2,000 and takes some minutes:

    FLOTILLA_SCHEMA_CASES=2000 ./tests/run -- tests/integration/test_live_schema.py

FLOTILLA_SCHEMA_SEED chooses other requests (the seed is in the failure's message), FLOTILLA_SCHEMA_REPORT names a file
for the whole report of a failure.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator
from live_calls import CHAT, Caller, chat
from live_fleet import LiveFleet
from schema_cases import Made, cases, shown

pytestmark = pytest.mark.integration
CASES = int(os.environ.get("FLOTILLA_SCHEMA_CASES", "150"))
SEED = int(os.environ.get("FLOTILLA_SCHEMA_SEED", "1"))
LIMIT_S = 20.0


class Judge:
    """Holds answers against the document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def fault(self, made: Made, answer: requests.Response, body: bytes, took_s: float) -> str:
        """What is wrong with an answer; empty when nothing is."""
        if took_s > LIMIT_S:
            return f"took {took_s:.1f} s"
        code, asked = answer.status_code, self._document["paths"][made.path].get(made.method.lower())
        if code == 504 and made.short_s is not None and made.short_s < LIMIT_S:
            return ""
        if code >= 500:
            return f"{code}: {body[:300]!r}"
        if asked is None:  # a method that the path does not have
            return "" if code in (401, 404, 405) else f"{code} for a method that is not there"
        if str(code) not in asked["responses"]:
            return f"{code} is not in the document: {body[:300]!r}"
        return self._form(asked["responses"][str(code)], answer, body)

    def _form(self, told: dict[str, Any], answer: requests.Response, body: bytes) -> str:
        if "$ref" in told:
            told = self._document["components"]["responses"][told["$ref"].rpartition("/")[2]]
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if kind not in told["content"]:
            return f"{answer.status_code} came as {kind!r}: {body[:300]!r}"
        if kind != "application/json":
            return ""
        whole = {"components": self._document["components"], **told["content"][kind]["schema"]}
        for error in Draft202012Validator(whole).iter_errors(json.loads(body)):
            return f"{answer.status_code}: {error.json_path}: {error.message[:300]}"
        return ""


def _report(faults: list[str], count: int) -> str:
    """All kinds of faults, then one request of each, whole in a file where FLOTILLA_SCHEMA_REPORT names one."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        first, _, _ = fault.partition("\n{")
        kinds.setdefault(re.sub(r"\d+(\.\d+)? s", "", first), []).append(fault)
    lines = [f"seed {SEED}: {len(faults)} of {count} answers are wrong"]
    lines += [f"{len(found)} × {kind}" for kind, found in kinds.items()]
    report = "\n\n".join([*lines, *(found[0] for found in kinds.values())])
    if name := os.environ.get("FLOTILLA_SCHEMA_REPORT"):
        Path(name).write_text(report)
    return report[:20_000]


def test_every_answer_is_one_that_the_document_names(fleet: LiveFleet, callers: Callable[[str], Caller]) -> None:
    caller = callers("fuzz")
    document = caller.call("/openapi.json").json
    judge, codes, faults, slowest = Judge(document), Counter[str](), list[str](), 0.0
    with requests.Session() as session:
        session.trust_env = False
        for made in cases(document, CASES, SEED, fleet.base_url.removesuffix("/v1"), str(caller.key)):
            began = time.monotonic()
            try:
                answer = session.request(**made.arguments, timeout=LIMIT_S, stream=True)
                body = answer.content
            except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
                continue  # this client cannot send it
            except requests.RequestException as error:
                faults.append(f"no whole answer after {time.monotonic() - began:.1f} s: {error!r}\n{shown(made)}")
                codes["none"] += 1
                continue
            took_s = time.monotonic() - began
            slowest = max(slowest, took_s)
            codes[f"{made.method} {made.path} {answer.status_code}"] += 1
            if fault := judge.fault(made, answer, body, took_s):
                faults.append(f"{fault}\n{shown(made)}")
    told = ", ".join(f"{k}: {n}" for k, n in sorted(codes.items()))
    print(f"{sum(codes.values())} requests, seed {SEED}, slowest {slowest:.1f} s: {told}")
    assert sum(codes.values()) >= CASES * 0.98, "fewer requests than asked for"
    assert not faults, _report(faults, sum(codes.values()))
    for name in ("chat/completions", "/v1/completions", "responses", "messages", "tokenize"):
        assert any(name in k and k.endswith(" 200") for k in codes), f"nothing reached the engine by {name}: {told}"
    assert caller.call(CHAT, chat("qwen", max_tokens=3)).status == 200
    assert all(fleet.running_in_engine(m) == 0 for m in ("qwen", "llama")), "something of them still runs"
