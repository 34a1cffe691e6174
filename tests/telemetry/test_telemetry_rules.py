"""The rules are right by Prometheus' own tool, and every alert fires when it should and only then."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.fleet.slos import PROMISES, Slo, TenantSlo
from serving.telemetry.metrics import BY_NAME
from serving.telemetry.rules import build, runbooks
from serving.telemetry.rules.table import alerts

ROOT = Path(__file__).resolve().parents[2]
CASES = yaml.safe_load((Path(__file__).parent / "alert_cases.yaml").read_text())
SLO = Slo(ttft_ms=500, tpot_ms=50, tenants={"shop": TenantSlo(ttft_ms=300, latency=0.99)})
RULES = build.rule_file({"qwen": SLO}, spool_bytes=1000)
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


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    """promtool runs once, over a file of cases for each alert and step, with that alert and what it asks for alone."""
    files, looked_at = [], 0
    for case in CASES:
        rules = tmp_path / f"{case['alert']}.yml"
        rules.write_text(yaml.safe_dump({"groups": [*needed(case["alert"])]}, sort_keys=False))
        severity = next(alert.severity for alert in alerts() if alert.alert == case["alert"])
        every = [*case["fires"], *case["silent"]]
        for step in {one.get("step", "1m") for one in every}:
            tests = [_test(case["alert"], one, severity) for one in every if one.get("step", "1m") == step]
            looked_at += len(tests)
            files.append(tmp_path / f"{case['alert']}-{step}-cases.yml")
            files[-1].write_text(yaml.safe_dump(
                {"rule_files": [rules.name], "evaluation_interval": step, "tests": tests}, sort_keys=False))
    done = promtool("test", "rules", *map(str, files))
    assert done.returncode == 0, done.stdout + done.stderr
    assert looked_at == sum(len(case["fires"]) + len(case["silent"]) for case in CASES)


def needed(alert: str) -> Iterator[dict[str, Any]]:
    """The rule file's groups with one alert, and the series that it asks for, and those that these ask for."""
    rules = {id(rule): rule for group in RULES["groups"] for rule in group["rules"]}
    kept = [rule for rule in rules.values() if rule.get("alert") == alert]
    for rule in kept:  # grows meanwhile
        asked = set(re.findall(r"\bflotilla:[\w:]+", rule["expr"]))
        kept += [made for made in rules.values() if made.get("record") in asked and made not in kept]
    for group in RULES["groups"]:
        if of_it := [rule for rule in group["rules"] if rule in kept]:
            yield group | {"rules": of_it}


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


def test_a_tenants_own_promises_have_budgets_and_what_they_do_not_say_is_the_models() -> None:
    rules = next(group["rules"] for group in RULES["groups"] if group["name"] == "flotilla-slo-tenants")
    budgets = {tuple(r["labels"].values()): r["expr"] for r in rules if r["record"].endswith("budget:ratio")}
    assert budgets == {("qwen", "shop", "availability"): "vector(0.001)", ("qwen", "shop", "ttft"): "vector(0.01)",
                       ("qwen", "shop", "tpot"): "vector(0.01)", ("qwen", "shop", "goodput"): "vector(0.1)"}


def test_the_runbook_page_is_made_from_the_table_and_alerts_point_into_it() -> None:
    page = (ROOT / build.RUNBOOK).read_text()
    assert page == runbooks.page(), "make it anew: flotilla rules --runbooks > deployments/docs/runbooks.md"
    anchors = {line.removeprefix("### ").lower() for line in page.splitlines() if line.startswith("### ")}
    urls = [rule["annotations"]["runbook_url"] for group in RULES["groups"] for rule in group["rules"]
            if "alert" in rule]
    assert {url.partition("#")[2] for url in urls} == anchors
