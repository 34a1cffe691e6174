"""The admin API: the command line's operations over HTTP, for admins alone, with every act written down."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from ledger_samples import PEPPER, fresh, reading, request
from safetensors.numpy import save_file

from serving.admin.adapters import Place
from serving.admin.app import application
from serving.fleet.catalogue import Fleet
from serving.fleet.config import parse
from serving.fleet.records import Amounts
from serving.fleet.specs import TenantSpec
from serving.ledger import audit, keys, tenants
from serving.ledger.keys import Grant
from serving.ledger.live import LedgerKeyring

FLEET = """
name: sample
prices: prices.json
accelerators: {core: {kind: cpu, memory_gib: 2, cpus: 0.3, price_usd_per_hour: 0.04}}
models:
  qwen: {source: BASE, architecture: Qwen3ForCausalLM, accelerator: core, aliases: [chat],
         slo: {ttft_ms: 500, tpot_ms: 50}, lora: {max_rank: 16}, engine: {max_model_len: 2048}}
  bare: {source: "small:qwen3", architecture: Qwen3ForCausalLM, accelerator: core, slo: {ttft_ms: 500, tpot_ms: 50},
         engine: {max_model_len: 2048}}
tenants: {shop: {}}
"""
NAMES = ("qwen", "chat", "qwen:support")


class Admin:
    """A client of the API, with an admin's key."""

    def __init__(self, folder: Path) -> None:
        self.ledger = fresh(folder / "ledger.db")
        tenants.seed(self.ledger, {"shop": TenantSpec(description="sells")}, 1.0)
        self.text, self.key = keys.create(self.ledger, "shop", "root", PEPPER, 1.0, Grant(scopes=("admin",)))
        app = application(self.ledger, LedgerKeyring(self.ledger, PEPPER, miss_age_s=0.0), PEPPER, lambda: NAMES,
                          place=Place(parse(FLEET.replace("BASE", str(folder / "base")), "sample", Fleet),
                                      folder / "checkpoints"))
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin",
                                      headers={"authorization": f"Bearer {self.text}"})

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200, **more: Any) -> Any:
        answer = await self.http.request(method, f"/admin/v1/{path}", json=body, **more)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest_asyncio.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    made = Admin(tmp_path)
    yield made
    await made.http.aclose()
    made.ledger.close()


async def test_a_key_from_its_making_to_its_end(admin: Admin) -> None:
    made = await admin.ask("POST", "keys", {
        "tenant": "shop", "name": "app", "models": ["qwen"], "priority": "batch", "expires_at": 2e9,
        "limits": {"requests_per_minute": 5, "budget_per_day": {"hard_usd": 1.5}}}, 201)
    assert made["key"].startswith(made["prefix"]) and made["limits"]["budget_per_day"] == {"hard_usd": 1.5}
    who = await LedgerKeyring(admin.ledger, PEPPER).principal(made["key"])
    assert (who.tenant, who.models, who.priority) == ("shop", frozenset({"qwen"}), "batch")
    listed = await admin.ask("GET", "keys")
    assert [k["name"] for k in listed["data"]] == ["root", "app"]
    assert made["key"] not in json.dumps(listed) and "digest" not in json.dumps(listed)
    rotated = await admin.ask("POST", f"keys/{made['key_id']}/rotate", {"overlap_s": 60}, 201)
    assert rotated["rotated_from"] == made["key_id"] and rotated["key"] != made["key"]
    revoked = await admin.ask("DELETE", f"keys/{rotated['key_id']}")
    assert revoked["revoked_at"]
    log = (await admin.ask("GET", "audit"))["data"]
    assert [(e["action"], e["actor"]) for e in log[:3]] == [
        (f"key.{what}", admin.key.key_id) for what in ("revoke", "rotate", "create")]


async def test_a_key_can_be_rotated_at_once(admin: Admin) -> None:
    made = await admin.ask("POST", "keys", {"tenant": "shop"}, 201)
    await admin.ask("POST", f"keys/{made['key_id']}/rotate", None, 201)
    assert next(k for k in keys.all_keys(admin.ledger) if k.key_id == made["key_id"]).revoked_at


async def test_a_tenant_from_its_making_to_its_end(admin: Admin) -> None:
    spec = {"weight": 2.0, "models": ["qwen"], "limits": {"concurrent_requests": 3}}
    assert (await admin.ask("PUT", "tenants/search", spec))["data"] == {"search": spec}
    assert (await admin.ask("GET", "tenants"))["data"] == {"search": spec, "shop": {"description": "sells"}}
    await admin.ask("DELETE", "tenants/search")
    assert set((await admin.ask("GET", "tenants"))["data"]) == {"shop"}
    found = audit.entries(admin.ledger, subject="tenant:search")
    assert [e.action for e in found] == ["tenant.remove", "tenant.set"]


WRONG = [
    ("POST", "keys", {"tenant": "shopp"}, "did you mean 'shop'"),
    ("POST", "keys", {"tenant": "shop", "models": ["qwem"]}, "did you mean 'qwen'"),
    ("POST", "keys", {"tenant": "shop", "scopes": ["root"]}, "scopes"),
    ("POST", "keys", {"tenant": "shop", "scopes": []}, "scopes"),
    ("POST", "keys", {"tenant": "shop", "limits": {"requests": 5}}, "limits.requests"),
    ("POST", "keys", {"tenant": "shop", "colour": "red"}, "colour"),
    ("POST", "keys", {"name": "x"}, "tenant"),
    ("DELETE", "keys/none", None, "no usable key matches"),
    ("PUT", "tenants/search", {"weight": -1}, "weight"),
    ("PUT", "tenants/search", {"models": ["qwem"]}, "did you mean 'qwen'"),
    ("PUT", "tenants/NOT_A_NAME", {}, "is not a name"),
    ("DELETE", "tenants/shopp", None, "did you mean 'shop'"),
    ("GET", "usage?by=hour", None, "usage is by tenant, key, model, adapter, preset, day"),
    ("POST", "adapters", {"model": "bare", "name": "a", "source": "small:lora"}, "has no room for adapters"),
    ("POST", "adapters", {"model": "qwen", "name": "a", "source": "small:lora", "tenants": ["shpo"]},
     "did you mean 'shop'"),
    ("GET", "usage?since=yesterday", None, "write how long ago"),
    ("GET", "usage?sinse=1d", None, "did you mean 'since'"),
]


@pytest.mark.parametrize(("method", "path", "body", "says"), WRONG)
async def test_what_is_wrong_is_named(admin: Admin, method: str, path: str, body: Any, says: str) -> None:
    before = len(audit.entries(admin.ledger))
    found = await admin.ask(method, path, body, 400)
    assert says in found["error"]["message"]
    assert len(audit.entries(admin.ledger)) == before


PATHS = [("GET", "keys"), ("POST", "keys"), ("DELETE", "keys/x"), ("POST", "keys/x/rotate"), ("GET", "tenants"),
         ("PUT", "tenants/x"), ("DELETE", "tenants/x"), ("GET", "usage"), ("GET", "audit"), ("GET", "adapters"),
         ("POST", "adapters"), ("DELETE", "adapters/m/x")]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_only_an_admin_may(admin: Admin, method: str, path: str) -> None:
    text, _ = keys.create(admin.ledger, "shop", "plain", PEPPER, 2.0)
    body = {"tenant": "shop"} if method in ("POST", "PUT") else None
    for headers, status in (({"authorization": "Bearer flt_none"}, 401), ({"authorization": ""}, 401),
                            ({"authorization": f"Bearer {text}"}, 403)):
        answer = await admin.http.request(method, f"/admin/v1/{path}", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        assert text not in answer.text
    keys.revoke(admin.ledger, admin.key.key_id, 3.0)


async def test_every_path_is_among_those_that_were_tried(admin: Admin) -> None:
    document = await admin.ask("GET", "openapi.json")
    told = {(m.upper(), p.removeprefix("/admin/v1/")) for p, item in document["paths"].items() for m in item}
    asked = {(m, re.sub("{(which|name)}", "x", p).replace("{model}", "m")) for m, p in told}
    assert asked == set(PATHS)
    assert all(o.get("description") or o.get("summary") for item in document["paths"].values() for o in item.values())


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """One that fits the model, which is there too."""
    for name, said in (("base/config.json", {}), ("adapter/adapter_config.json", {"peft_type": "LORA", "r": 4})):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(said))
    layer = "model.layers.0.self_attn.q_proj"
    save_file({f"{layer}.weight": np.zeros((12, 8), np.float32)}, tmp_path / "base" / "model.safetensors")
    save_file({f"base_model.model.{layer}.lora_A.weight": np.zeros((4, 8), np.float32),
               f"base_model.model.{layer}.lora_B.weight": np.zeros((12, 4), np.float32)},
              tmp_path / "adapter" / "adapter_model.safetensors")
    return tmp_path / "adapter"


async def test_an_adapter_from_its_addition_to_its_end(admin: Admin, adapter: Path) -> None:
    new = {"model": "chat", "name": "support", "source": str(adapter), "tenants": ["shop"]}
    made = await admin.ask("POST", "adapters", new, 201)
    assert (made["model"], made["name"], made["tenants"], made["removed_at"]) == ("qwen", "support", ["shop"], None)
    assert (await admin.ask("GET", "adapters"))["data"] == [made]
    assert "is there already" in (await admin.ask("POST", "adapters", new, 400))["error"]["message"]
    gone = await admin.ask("DELETE", "adapters/qwen/support")
    assert gone["removed_at"] and (await admin.ask("GET", "adapters"))["data"] == []
    acts = audit.entries(admin.ledger, subject="adapter:qwen:support")
    assert [(e.action, e.actor) for e in acts] == [("adapter.remove", admin.key.key_id),
                                                   ("adapter.add", admin.key.key_id)]


async def test_usage_is_the_ledgers(admin: Admin) -> None:
    admin.ledger.write_requests([request(1, tenant="shop"), request(2, tenant="search")])
    admin.ledger.write_reading(reading(charges={"flo-1": Amounts(100, 0, 20, 3), "flo-2": 50}))
    found = (await admin.ask("GET", "usage"))["data"]
    assert [(r["tenant"], r["model"], r["cost_nanousd"]) for r in found] == [("search", "qwen", 50),
                                                                           ("shop", "qwen", 123)]
    found = (await admin.ask("GET", "usage?by=key,day&tenant=shop&since=1970-01-01"))["data"]
    assert [(r["key"], r["day"], r["requests"], r["cost_nanousd"]) for r in found] == [("key_1", "1970-01-01", 1, 123)]


async def test_what_was_sent_is_not_repeated(admin: Admin) -> None:
    answer = await admin.http.post("/admin/v1/keys", json={"tenant": "shop", "name": {"secret": "hunter2"}})
    assert answer.status_code == 400 and "hunter2" not in answer.text
