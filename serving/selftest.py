"""`helm test`, and any operator's first question: `python -m serving.selftest`. Does the fleet really answer and count?

It calls the API as a tenant would, with a key made for this and revoked at its end, and then looks whether what it used
is in the answer, in the ledger and in the metrics. Runs where the ledger can be reached. May not happen in here: Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from serving.errors import FlotillaError, StartFailed
from serving.ledger import keys, sums
from serving.ledger.store import Ledger
from serving.plan import Changes, fleet
from serving.settings import Settings

_TIMEOUT_S = 60.0
_SETTLED_S = 20.0


class Api:
    """The fleet as a caller with a key sees it."""

    def __init__(self, base: str, key: str) -> None:
        self._base, self._key = base.rstrip("/"), key
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def call(self, path: str, body: dict[str, Any] | None = None) -> tuple[dict[str, Any], str]:
        """JSON answer of a GET, or a POST with `body`, and the request's id. Raises: StartFailed, with what was
        said."""
        request = urllib.request.Request(self._base + path, json.dumps(body).encode() if body else None,
                                         {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"})
        try:
            with self._open(request, timeout=_TIMEOUT_S) as answer:
                return json.load(answer), answer.headers.get("x-flotilla-request-id", "")
        except urllib.error.HTTPError as error:
            raise StartFailed(f"{path} answered {error.code}: {error.read()[:500].decode(errors='replace')}") from error
        except (OSError, ValueError) as error:
            raise StartFailed(f"{self._base}{path} cannot be called: {error}") from error

    def text(self, url: str) -> str:
        """The text at a URL. Raises: StartFailed."""
        try:
            with self._open(url, timeout=_TIMEOUT_S) as answer:
                return str(answer.read().decode())
        except OSError as error:
            raise StartFailed(f"{url} cannot be read: {error}") from error


def check(api: Api, models: Sequence[str], metrics: str, ledger: Ledger, say: Callable[[str], None]) -> None:
    """Everything, in order. Raises: StartFailed at the first thing that is wrong."""
    listed = {m["id"] for m in api.call("/v1/models")[0]["data"]}
    if missing := set(models) - listed:
        raise StartFailed(f"/v1/models does not list {', '.join(sorted(missing))}")
    say(f"/v1/models lists {len(listed)} names")
    for model in models:
        answer, request_id = api.call("/v1/completions", {"model": model, "prompt": "ready?", "max_tokens": 4})
        usage = answer.get("usage") or {}
        if not usage.get("completion_tokens") or "cost" not in usage:
            raise StartFailed(f"{model}: the answer has no usage with a cost: {usage}")
        _await_row(ledger, request_id)
        say(f"{model}: {usage['completion_tokens']} tokens, ${usage['cost']:.9f}, in the ledger as {request_id}")
    residual = sums.reconcile(ledger).residual_nanousd
    if residual:
        raise StartFailed(f"the books are {residual} nano-USD away from the bill")
    say("the books add up to the bill")
    told = api.text(metrics)
    for line in ("flotilla_ledger_up 1.0", "flotilla_cost_usd_total{"):
        if line not in told:
            raise StartFailed(f"{metrics} has no {line!r}")
    say("the metrics tell of it")


def _await_row(ledger: Ledger, request_id: str) -> None:
    deadline = time.monotonic() + _SETTLED_S
    while (found := sums.request(ledger, request_id)) is None or found.request is None:
        if time.monotonic() > deadline:
            raise StartFailed(f"the request {request_id} is not in the ledger after {_SETTLED_S:g} s")
        time.sleep(0.5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 with what is wrong on standard error."""
    parser = argparse.ArgumentParser(prog="python -m serving.selftest", description="Does the fleet answer and count?")
    parser.add_argument("--api", required=True, help="base URL, without /v1")
    parser.add_argument("--metrics", required=True, help="URL of the exporter's metrics")
    parser.add_argument("--model", action="append", help="only this one; may be repeated. Default: all that complete")
    asked = parser.parse_args(arguments)
    own = Settings.read(os.environ)
    made: str | None = None
    ledger: Ledger | None = None
    try:
        found = fleet(own.fleet, Changes({}))
        ledger = Ledger.open(own.database)
        models = asked.model or [n for n, m in found.models.items() if m.engine.args.get("runner", "auto") != "pooling"]
        tenant = next((n for n, t in found.tenants.items() if t.models is None), next(iter(found.tenants)))
        text, key = keys.create(ledger, tenant, "self-test", own.pepper(), time.time())
        made = key.key_id
        check(Api(asked.api, text), models, asked.metrics, ledger, lambda line: print(f"ok    {line}", flush=True))
    except FlotillaError as error:
        print(f"wrong {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        if made is not None and ledger is not None:
            keys.revoke(ledger, made, time.time())
    return 0


if __name__ == "__main__":
    sys.exit(main())
