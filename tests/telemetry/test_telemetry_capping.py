"""The label `tenant` stays bounded, and sums stay true."""

from __future__ import annotations

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
