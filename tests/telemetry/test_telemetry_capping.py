"""The label `tenant` stays bounded, and sums stay true."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.core import CounterMetricFamily, Metric

from serving.telemetry.capping import Capped, Tenants


def family(*values: tuple[str, str, float]) -> Metric:
    made = CounterMetricFamily("x", "x", labels=("tenant", "code"))
    for tenant, code, value in values:
        made.add_metric((tenant, code), value)
    return made


def collected(tenants: Tenants, found: Metric) -> dict[tuple[str, str], float]:
    (out,) = Capped(lambda: [found], tenants).collect()
    return {(s.labels["tenant"], s.labels["code"]): s.value for s in out.samples}


def test_who_comes_after_so_many_is_counted_as_other() -> None:
    tenants = Tenants(3, ["c", "a"])
    found = family(("a", "200", 1), ("b", "200", 2), ("c", "200", 4), ("d", "200", 8), ("e", "200", 16),
                   ("", "401", 32))
    assert collected(tenants, found) == {("a", "200"): 1, ("b", "200"): 2, ("c", "200"): 4, ("other", "200"): 24,
                                         ("", "401"): 32}


def test_a_name_once_given_is_kept() -> None:
    tenants = Tenants(1)
    assert tenants.name("z") == "z"
    assert tenants.name("a") == "other"
    assert tenants.name("z") == "z"


def test_what_has_no_tenants_stays_as_it_is() -> None:
    plain = CounterMetricFamily("y", "y", labels=("model",))
    plain.add_metric(("qwen",), 3)
    (out,) = Capped(lambda: [plain], Tenants(1)).collect()
    assert [(s.labels, s.value) for s in out.samples] == [({"model": "qwen"}, 3)]


def test_who_has_promises_of_its_own_is_always_named() -> None:
    own = CounterMetricFamily("flotilla_tenant_promise_missed", "y", labels=("tenant", "code"))
    own.add_metric(("late", ""), 3)
    assert collected(Tenants(1, ["first"]), own) == {("late", ""): 3}


def test_an_exporter_that_starts_again_names_the_same_tenants(tmp_path: Path) -> None:
    file = tmp_path / "named.json"
    first = Tenants(3, ["a"], file)
    assert [first.name(who) for who in ("z", "y", "x")] == ["z", "y", "other"]
    again = Tenants(3, ["a", "x"], file)  # seen in another order, and one of them is in the fleet file now
    assert [again.name(who) for who in ("x", "y", "z", "a")] == ["other", "y", "z", "a"]


@pytest.mark.parametrize("content", ["", "{", "[1, null]", '{"a": 1}'])
def test_a_spoiled_memory_of_names_is_begun_anew(tmp_path: Path, content: str) -> None:
    file = tmp_path / "named.json"
    file.write_text(content)
    assert Tenants(1, (), file).name("b") in ("b", "other")
    assert Tenants(2, ["b"], tmp_path / "no" / "such" / "folder.json").name("b") == "b"
