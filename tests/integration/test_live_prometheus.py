"""The real Prometheus on the shipped configuration: what it scrapes answers the questions that people ask."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from live_calls import CHAT, Caller, chat
from live_fleet import ROOT, LiveFleet, eventually
from prometheus_server import Prometheus, program, running

from serving.fleet.slos import PROMISES
from serving.telemetry.dashboards.build import Panel, dashboards

pytestmark = pytest.mark.integration
TENANT = "watcher"
SHIPPED = ROOT / "deployments" / "prometheus.yml"
STREAMS, TOKENS = 12, 30


@pytest.fixture(scope="module")
def prometheus(fleet: LiveFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """On the shipped file, but with this fleet's port and a scrape each second."""
    folder = tmp_path_factory.mktemp("prometheus")
    shipped = SHIPPED.read_text()
    assert shipped.count("127.0.0.1:9464") >= 2
    mine = re.sub(r"(scrape|refresh)_interval: 5s", r"\1_interval: 1s", shipped)
    rules = re.sub(r"interval: [15]m", "interval: 1s", fleet.say("rules", str(fleet.file)))
    (folder / "rules.yml").write_text(rules)
    (folder / "prometheus.yml").write_text(
        mine.replace("127.0.0.1:9464", f"127.0.0.1:{fleet.metrics_port}") + "\nrule_files: [rules.yml]\n")
    with running(folder, "--enable-feature=exemplar-storage") as made:
        yield made


@pytest.fixture(scope="module")
def watched(fleet: LiveFleet, prometheus: Prometheus, callers: Callable[[str], Caller]) -> float:
    """Streams to both models after their series have been scraped once. Gives the seconds that they took."""
    caller = callers(TENANT)

    def scraped(count: int) -> bool:
        return sum(prometheus.ask(f'flotilla_requests_total{{tenant="{TENANT}"}}').values()) == count

    for model in ("qwen", "llama"):
        caller.call(CHAT, chat(model, max_tokens=TOKENS, stream=True))
    eventually(lambda: scraped(2), "the first requests are scraped", 15, 0.2)
    began = time.monotonic()
    bodies = [chat(("qwen", "llama")[i % 2], f"Ship {i}", TOKENS, stream=True) for i in range(STREAMS)]
    assert all(b"[DONE]" in a.body for a in caller.many(CHAT, bodies, at_once=3))
    fleet.settled()
    tokens = (STREAMS + 2) * TOKENS
    done = f'sum(flotilla_tokens_total{{tenant="{TENANT}", kind="completion"}})'
    eventually(lambda: prometheus.ask(done).get("") == tokens and scraped(STREAMS + 2), "all of it is scraped", 15, 0.2)
    return time.monotonic() - began


def test_the_shipped_file_is_right() -> None:
    checked = subprocess.run([program("promtool"), "check", "config", str(SHIPPED)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_query_in_the_shipped_file_has_an_answer(prometheus: Prometheus, watched: float) -> None:
    queries = shipped_queries()
    assert len(queries) >= 10
    for query in queries:
        found = prometheus.ask(query)
        assert found and all(v == v and v >= 0 for v in found.values()), f"{query}: {found}"


def shipped_queries() -> list[str]:
    """The queries in the comments: indented lines, where one that begins with an operator goes on the one before."""
    found: list[str] = []
    for line in re.findall(r"^#   (.*)$", SHIPPED.read_text(), re.MULTILINE):
        text = line.strip()
        if text.startswith("/"):
            found[-1] += f" {text}"
        elif not text.startswith("prometheus "):
            found.append(text)
    return found


def test_the_fleet_and_every_replica_are_scraped(fleet: LiveFleet, prometheus: Prometheus) -> None:
    wanted = {f"127.0.0.1:{fleet.metrics_port}", *fleet.replicas("qwen"), *fleet.replicas("llama")}
    eventually(lambda: prometheus.healthy() == dict.fromkeys(wanted, "up"), f"{wanted} are up", 15, 0.2)


def test_costs_tokens_and_requests_equal_the_ledger(fleet: LiveFleet, prometheus: Prometheus, watched: float) -> None:
    charged = dict(fleet.rows("SELECT r.model, SUM(c.direct) FROM charges c JOIN sources r USING (source_id)"
                              " WHERE c.tenant = ? GROUP BY 1", TENANT))
    cost = prometheus.ask(f'sum by (model) (flotilla_cost_usd_total{{tenant="{TENANT}", bucket="direct"}})')
    assert {model: round(usd * 1e9) for model, usd in cost.items()} == charged
    requests = prometheus.ask(f'sum by (model) (flotilla_requests_total{{tenant="{TENANT}", code="200"}})')
    assert requests == {"qwen": STREAMS / 2 + 1, "llama": STREAMS / 2 + 1}


def test_throughput_and_cost_per_request_are_what_was_sent(
        fleet: LiveFleet, prometheus: Prometheus, watched: float) -> None:
    of = f'tenant="{TENANT}"'
    tokens = f'flotilla_tokens_total{{{of}, kind="completion"}}'
    # a rate is extrapolated by up to half the distance of two scrapes at each end: much, while there are few of them
    eventually(lambda: prometheus.ask(f"min(count_over_time({tokens}[1m]))").get("", 0) >= 8, "eight scrapes", 30, 0.2)
    rate = prometheus.ask(f"sum(rate({tokens}[1m])) * 60")[""]
    assert rate == pytest.approx(STREAMS * TOKENS, rel=0.3)
    each = prometheus.ask(f'sum by (model) (increase(flotilla_cost_usd_total{{{of}, bucket=~"direct|waste"}}[1m]))'
                          f' / sum by (model) (increase(flotilla_requests_total{{{of}, code="200"}}[1m]))')
    rows = fleet.rows("SELECT r.model, AVG(c.direct + c.waste), MIN(c.direct + c.waste), MAX(c.direct + c.waste)"
                      " FROM charges c JOIN sources r USING (source_id) WHERE c.tenant = ? GROUP BY 1", TENANT)
    assert len(rows) == 2
    for model, mean, least, most in rows:
        assert min(least, 0.8 * mean) <= each[model] * 1e9 <= max(most, 1.2 * mean)


def test_the_median_time_to_first_token_is_near_the_gateways_rows(
        fleet: LiveFleet, prometheus: Prometheus, watched: float) -> None:
    found = prometheus.ask("histogram_quantile(0.5, sum by (le, model) (rate("
                           f'flotilla_time_to_first_token_seconds_bucket{{tenant="{TENANT}"}}[1m])))')
    for model in ("qwen", "llama"):
        seen = [row[0] for row in fleet.rows("SELECT ttft_s FROM requests WHERE tenant = ? AND model = ?",
                                             TENANT, model)]
        # a histogram knows the bucket of the median, and edges of buckets lie at most 2.5-fold apart
        assert min(seen) / 2.5 <= found[model] <= max(seen) * 2.5


def test_a_request_under_way_shows_in_the_engines_own_metrics(
        prometheus: Prometheus, callers: Callable[[str], Caller], watched: float) -> None:
    running = "sum by (model) (vllm:num_requests_running)"
    eventually(lambda: prometheus.ask(running) == {"qwen": 0, "llama": 0}, "both engines idle", 15, 0.2)
    stream = callers(TENANT).open(CHAT, chat("llama", max_tokens=1900, stream=True))
    try:
        eventually(lambda: prometheus.ask(running) == {"qwen": 0, "llama": 1}, "one at work", 10, 0.1)
    finally:
        stream.close()
    eventually(lambda: prometheus.ask(running) == {"qwen": 0, "llama": 0}, "idle again", 10, 0.1)


def test_a_buckets_exemplar_is_the_trace_of_a_request_in_it(
        prometheus: Prometheus, callers: Callable[[str], Caller], watched: float) -> None:
    trace = "5cf92f3577b34da6a3ce929d0e0e4736"
    answer = callers(TENANT).call(CHAT, chat("qwen", stream=True), traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    assert answer.status == 200
    seen = eventually(lambda: prometheus.exemplars(
        f'flotilla_time_to_first_token_seconds_bucket{{tenant="{TENANT}"}}'), "an exemplar", 20, 0.2)
    assert [exemplar["labels"]["trace_id"] for _, exemplar in seen] == [trace]


# last, because they take a while: rates over a minute are of what was just sent
PANELS = [(board.uid, panel) for board in dashboards() for panel in board.panels]


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=[f"{board}: {panel.title}" for board, panel in PANELS])
def test_every_dashboard_query_has_an_answer(prometheus: Prometheus, watched: float, board: str, panel: Panel) -> None:
    for query in panel.queries.values():
        asked = re.sub(r"\$(model|tenant)", ".*", query).replace("$__rate_interval", "30s")
        if panel.empty:
            prometheus.ask(asked)
        else:
            eventually(lambda asked=asked: prometheus.ask(asked), query, 60, 0.5)


def test_a_tenants_own_promises_have_an_error_budget_that_is_whole(prometheus: Prometheus, watched: float) -> None:
    whole = {(model, promise): 1.0 for model in ("qwen", "llama") for promise in PROMISES}

    def left() -> bool:
        found = prometheus.series(f'flotilla:tenant_promise_budget_left:ratio{{tenant="{TENANT}"}}')
        return {(labels["model"], labels["promise"]): value for labels, value in found} == whole

    eventually(left, "the budgets are whole", 60, 0.5)


def test_no_alert_fires_while_the_fleet_serves(prometheus: Prometheus, watched: float) -> None:
    assert prometheus.ask('count(ALERTS{alertstate="firing"})') == {}
