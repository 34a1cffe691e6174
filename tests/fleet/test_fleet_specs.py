"""What a fleet file says about traffic: limits, adapters, fallbacks, routes, tenants."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_samples import FLEET, line_of, write

from serving.errors import ConfigError
from serving.fleet.catalogue import Fleet, load
from serving.plan import Changes
from serving.plan import fleet as planned

TRAFFIC = """\
    aliases: [qwen3, small]
    replicas: {min: 0, max: 2}
    routing: least_loaded
    overload: {max_in_flight: 3, max_queue: 0, max_wait_s: 0.5}
    fallback: [llama]
    adapters: {poet: {source: org/poet, description: rhymes}, made: {source: "small:lora"}}
"""
NAMES = """\
routes:
  chat: {variants: {qwen: 9, llama: 1}, aliases: [talk], description: canary}
tenants:
  demo: {models: [small, "qwen3:poet", talk, llama], weight: 2.5}
"""
FULL = FLEET.replace("    aliases: [qwen3, small]\n", TRAFFIC).replace("tenants:\n  demo: {}\n", NAMES)


def read(folder: Path, text: str) -> Fleet:
    return load(write(folder, text), ("qwen3",), ("lora",))


def test_what_is_left_out_changes_nothing(tmp_path: Path) -> None:
    fleet = read(tmp_path, FLEET)
    llama, demo, gateway = fleet.models["llama"], fleet.tenants["demo"], fleet.gateway
    assert (llama.adapters, llama.fallback, llama.routing, fleet.routes) == ({}, (), "prefix", {})
    assert (llama.overload.max_in_flight, llama.overload.max_queue, llama.overload.max_wait_s) == (None, 256, 30.0)
    assert (demo.models, demo.weight) == (None, 1.0)
    assert (gateway.max_header_kib, gateway.body_timeout_s) == (32, 30)
    assert (gateway.write_timeout_s, gateway.drain_s) == (60, 30)


def test_a_file_says_all_of_it(tmp_path: Path) -> None:
    fleet = read(tmp_path, FULL)
    qwen = fleet.models["qwen"]
    assert (qwen.replicas.min, qwen.routing, qwen.overload.max_in_flight) == (0, "least_loaded", 3)
    assert (qwen.overload.max_queue, qwen.overload.max_wait_s, qwen.fallback) == (0, 0.5, ("llama",))
    assert qwen.small_adapters == ("made",) and qwen.adapters["poet"].small_kind is None
    assert (fleet.routes["chat"].variants, fleet.routes["chat"].aliases) == ({"qwen": 9, "llama": 1}, ("talk",))
    assert fleet.tenants["demo"].models == ("small", "qwen3:poet", "talk", "llama")
    assert fleet.tenants["demo"].weight == 2.5


def test_every_name_stands_for_one_thing(tmp_path: Path) -> None:
    names = read(tmp_path, FULL).callable_names()
    assert {n for n, means in names.items() if means == "qwen:poet"} == {"qwen:poet", "qwen3:poet", "small:poet"}
    assert {n for n, means in names.items() if means == "chat"} == {"chat", "talk"}
    assert set(names.values()) == {"qwen", "qwen:poet", "qwen:made", "llama", "chat"}


def test_a_tenant_may_be_left_with_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, FLEET.replace("demo: {}", "demo: {models: []}")).tenants["demo"].models == ()


# (what stands in the full file, what is put there, what the message must say); the place is where `put` begins
WRONG = {
    "a route to no model": ("qwen: 9", "qwn: 9", ["routes.chat.variants.qwn", "did you mean 'qwen'?"]),
    "a route to an alias": ("qwen: 9", "qwen3: 9", ["routes.chat.variants.qwen3", "did you mean 'qwen'?"]),
    "a route to itself": ("qwen: 9", "chat: 9", ["routes.chat.variants.chat", "'chat' is not known"]),
    "a route to nothing": ("{qwen: 9, llama: 1}", "{}", ["routes.chat.variants", "at least 1"]),
    "a weight of nothing": ("qwen: 9", "qwen: 0", ["routes.chat.variants.qwen", "greater than or equal to 1"]),
    "a weight that is a share": ("qwen: 9", "qwen: 0.9", ["routes.chat.variants.qwen", "integer", "0.9"]),
    "a route with a model's name": ("chat: {v", "llama: {v", ["routes.llama", "is a model already"]),
    "a route's alias that is a model": ("[talk]", "[llama]", ["routes.chat.aliases.0", "already names 'llama'"]),
    "a route's alias that is an alias": ("[talk]", "[qwen3]", ["routes.chat.aliases.0", "already names 'qwen'"]),
    "an unknown key of a route": ("aliases: [talk]", "alias: [talk]", ["routes.chat.alias", "'aliases'?"]),
    "a tenant of no model": ("llama], weight", "lama], weight", ["tenants.demo.models.3", "did you mean 'llama'?"]),
    "a tenant of no adapter": ('"qwen3:poet"', '"qwen3:pet"', ["tenants.demo.models.1", "'qwen3:poet'?"]),
    "a tenant of a route's adapter": ('"qwen3:poet"', '"chat:poet"', ["tenants.demo.models.1", "'chat:poet' is not"]),
    "a tenant without weight": ("weight: 2.5", "weight: 0", ["tenants.demo.weight", "greater than 0"]),
    "a tenant of all the weight": ("weight: 2.5", "weight: .inf", ["tenants.demo.weight", "finite"]),
    "a fallback that is not there": ("[llama]", "[llama, qwn]", ["models.qwen.fallback.1", "did you mean 'qwen'?"]),
    "a fallback that is a route": ("[llama]", "[chat]", ["models.qwen.fallback.0", "'chat' is not known"]),
    "a fallback on itself": ("[llama]", "[qwen]", ["models.qwen.fallback.0", "not 'qwen' itself"]),
    "a fallback twice": ("[llama]", "[llama, llama]", ["models.qwen.fallback.1", "'llama' is asked already"]),
    "a policy that is not there": ("least_loaded", "random", ["models.qwen.routing", "'round_robin'", "'random'"]),
    "no seat at all": ("max_in_flight: 3", "max_in_flight: 0", ["overload.max_in_flight", "found 0"]),
    "no patience at all": ("max_wait_s: 0.5", "max_wait_s: 0", ["overload.max_wait_s", "greater than 0"]),
    "fewer than none waiting": ("max_queue: 0", "max_queue: -1", ["overload.max_queue", "found -1"]),
    "an unknown key of overload": ("max_queue:", "max_que:", ["overload.max_que", "did you mean 'max_queue'?"]),
    "no replica ever": ("{min: 0, max: 2}", "{min: 0, max: 0}", ["models.qwen.replicas.max", "found 0"]),
    "an adapter without source": ("source: org/poet, ", "", ["models.qwen.adapters.poet.source", "is missing"]),
    "an adapter's bad name": ("poet: {s", '"a:b": {s', ["models.qwen.adapters.a:b", "'a:b' is not a name"]),
    "an adapter of no kind": ("small:lora", "small:loar", ["qwen.adapters.made.source", "did you mean 'lora'?"]),
    "an adapter made here for what is not": ("source: small:qwen3", "source: org/qwen",
                                             ["models.qwen.adapters.made.source", "'qwen' has 'org/qwen'"]),
    "an unknown key of the gateway": ("routes:\n", "gateway: {drain: 1}\nroutes:\n", ["did you mean 'drain_s'?"]),
}
ELSEWHERE = {"an adapter without source": "adapters:", "an adapter made here for what is not": "adapters:",
             "an unknown key of the gateway": "gateway:"}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_place_and_remedy(name: str, tmp_path: Path) -> None:
    right, put, said = WRONG[name]
    assert FULL.count(right) >= 1
    text = FULL.replace(right, put, 1)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    line = line_of(text, ELSEWHERE[name]) if name in ELSEWHERE else text[: FULL.index(right)].count("\n") + 1
    assert f"{tmp_path / 'fleet.yaml'}:{line}: " in message
    for part in said:
        assert part in message


def test_a_model_with_adapters_made_here_cannot_change_its_weights(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    with pytest.raises(ConfigError, match=r"'qwen' cannot be 'Qwen/Qwen3-0.6B'.*'small:qwen3' \(made\); remove"):
        planned(path, Changes({"qwen": "Qwen/Qwen3-0.6B"}))
    assert planned(path, Changes({"llama": "org/other"})).models["llama"].source == "org/other"
    assert planned(path, Changes({"qwen": "small:qwen3"})).models["qwen"].source == "small:qwen3"
