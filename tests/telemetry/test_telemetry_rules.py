"""The rules are right by Prometheus' own tool, and every alert fires when it should and only then."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.fleet.slos import PROMISES, Slo
from serving.telemetry.metrics import BY_NAME
from serving.telemetry.rules import build, runbooks
from serving.telemetry.rules.table import alerts

ROOT = Path(__file__).resolve().parents[2]
CASES = yaml.safe_load((Path(__file__).parent / "alert_cases.yaml").read_text())
RULES = build.rule_file({"qwen": Slo(ttft_ms=500, tpot_ms=50)}, spool_bytes=1000)
OTHERS = {"vllm:kv_cache_usage_perc", "kube_pod_status_unschedulable"}  # metrics that are not Flotilla's


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        word = "promtool is not installed (Debian: apt install prometheus)"
        pytest.fail(word) if os.environ.get("CI") else pytest.skip(word)
    return subprocess.run([found, *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def rule_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yml"
    path.write_text(yaml.safe_dump(RULES, sort_keys=False))
    return path


def test_promtool_finds_nothing_wrong(rule_file: Path) -> None:
    checked = promtool("check", "rules", str(rule_file))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_cases_that_fire_and_cases_that_do_not() -> None:
    assert [case["alert"] for case in CASES if case["fires"] and case["silent"]] == [case["alert"] for case in CASES]
    assert {case["alert"] for case in CASES} == {alert.alert for alert in alerts()}
    assert len(CASES) == len(alerts())


@pytest.mark.parametrize(("group", "step"), [("slo", "1m"), ("slo", "5m"), ("rest", "1m")])
def test_alerts_fire_when_they_should_and_only_then(rule_file: Path, group: str, step: str) -> None:
    known = {alert.alert: alert for alert in alerts()}
    tests = [_test(case["alert"], one, known[case["alert"]].severity) for case in CASES
             if (known[case["alert"]].group == "slo") == (group == "slo")
             for one in (*case["fires"], *case["silent"]) if one.get("step", "1m") == step]
    assert tests
    rules = rule_file.with_name(f"rules-{group}.yml")  # error budgets take their time, and only their alerts need them
    rules.write_text(yaml.safe_dump({"groups": [
        g for g in RULES["groups"] if g["name"].startswith("flotilla-slo") == (group == "slo")]}, sort_keys=False))
    file = rule_file.with_name(f"cases-{group}-{step}.yml")
    file.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": step, "tests": tests}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_case_is_looked_at() -> None:
    steps = {(known.group == "slo", one.get("step", "1m")) for case in CASES for known in alerts()
             if known.alert == case["alert"] for one in (*case["fires"], *case["silent"])}
    assert steps == {(True, "1m"), (True, "5m"), (False, "1m")}


def _test(alert: str, case: dict[str, Any], severity: str) -> dict[str, Any]:
    labels = {"alertname": alert, "alertstate": "firing", "severity": severity, "service": "flotilla"}
    expected = []
    if "labels" in case:
        shown = ",".join(f'{name}="{value}"' for name, value in sorted((labels | case["labels"]).items()))
        expected = [{"labels": f"ALERTS{{{shown}}}", "value": 1}]
    return {
        "interval": case.get("step", "1m"),
        "input_series": [{"series": series, "values": values} for series, values in case["series"].items()],
        "promql_expr_test": [{"expr": f'ALERTS{{alertname="{alert}",alertstate="firing"}}', "eval_time": case["at"],
                              "exp_samples": expected}],
    }


def test_rules_ask_for_metrics_that_exist() -> None:
    text = " ".join(rule["expr"] for group in RULES["groups"] for rule in group["rules"])
    asked = set(re.findall(r"\b(?:flotilla_\w+|vllm:\w+|kube_\w+)", text))
    assert asked - set(BY_NAME) == OTHERS
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    assert set(re.findall(r"\bflotilla:[\w:]+", text)) <= recorded


def test_each_promise_of_each_model_has_its_budget() -> None:
    slos = {"qwen": Slo(ttft_ms=500, tpot_ms=50, availability=0.99), "llama": Slo(ttft_ms=1, tpot_ms=1, latency=0.8)}
    rules = build.rule_file(slos, 1)["groups"][0]["rules"]
    budgets = {(r["labels"]["model"], r["labels"]["promise"]): r["expr"] for r in rules}
    assert len(budgets) == 2 * len(PROMISES)
    assert budgets["qwen", "availability"] == "vector(0.01)" and budgets["llama", "ttft"] == "vector(0.2)"


def test_the_runbook_page_is_made_from_the_table_and_alerts_point_into_it() -> None:
    page = (ROOT / build.RUNBOOK).read_text()
    assert page == runbooks.page(), "make it anew: flotilla rules --runbooks > deployments/docs/runbooks.md"
    anchors = {line.removeprefix("### ").lower() for line in page.splitlines() if line.startswith("### ")}
    urls = [rule["annotations"]["runbook_url"] for group in RULES["groups"] for rule in group["rules"]
            if "alert" in rule]
    assert {url.partition("#")[2] for url in urls} == anchors
