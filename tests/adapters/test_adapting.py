"""`flotilla adapters` and what it shares with the admin API, over a real ledger and a small checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving import adapting, checkpoints
from serving.adapting import Wanted
from serving.cli.adapters import add, list_, remove
from serving.errors import AdapterRefused
from serving.fleet.catalogue import Fleet, load
from serving.fleet.routing import Routes
from serving.ledger import adapters as store
from serving.ledger.store import Ledger

FILE = Path(__file__).resolve().parents[2] / "deployments" / "fleets" / "assistants.yaml"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small checkpoints, made once."""
    return tmp_path_factory.mktemp("small")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "ledger.db")


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return load(FILE, checkpoints.families(), checkpoints.ADAPTERS)


def test_an_adapter_is_added_replaced_and_removed(ledger: Ledger, fleet: Fleet, root: Path) -> None:
    made = adapting.add(ledger, fleet, Wanted("qwen", "tone", "small:lora", "our tone", ("shop-web",)), root, 5.0)
    assert (made.addressed, made.rank, made.tenants) == ("qwen:tone", 8, ("shop-web",))
    assert (Path(made.path) / "adapter_model.safetensors").is_file()
    routes = Routes.of(fleet, store.present(ledger))
    assert routes.resolve("qwen:tone", "shop-web", 0).asked_of("qwen") == f"qwen:tone#{made.adapter_id}"
    assert "qwen:tone" in routes.visible("shop-web") and "qwen:tone" not in routes.visible("demo")
    with pytest.raises(AdapterRefused, match="--replace puts this one in its place"):
        adapting.add(ledger, fleet, Wanted("qwen", "tone", made.path), root, 6.0)
    newer = adapting.add(ledger, fleet, Wanted("qwen", "tone", made.path, replace=True), root, 6.0)
    assert [a.adapter_id for a in store.present(ledger)] == [newer.adapter_id]
    assert adapting.remove(ledger, fleet, "qwen", "tone", 7.0).adapter_id == newer.adapter_id
    assert store.present(ledger) == []


@pytest.mark.parametrize(("wanted", "said"), [
    (Wanted("qwem", "a", "small:lora"), "did you mean 'qwen'?"), (Wanted("qwen", "A b", "small:lora"), "is not a name"),
    (Wanted("qwen", "a", "small:loar"), "did you mean 'lora'?"), (Wanted("qwen", "a", "/nowhere"), "no such folder"),
    (Wanted("qwen", "a", "small:lora", tenants=("dmo",)), "did you mean 'demo'?"),
])
def test_what_is_refused(ledger: Ledger, fleet: Fleet, root: Path, wanted: Wanted, said: str) -> None:
    with pytest.raises(AdapterRefused, match=said.replace("?", r"\?")):
        adapting.add(ledger, fleet, wanted, root, 5.0)
    assert store.every(ledger) == []


def test_one_of_another_base_is_refused(ledger: Ledger, fleet: Fleet, root: Path) -> None:
    other = checkpoints.make_adapter(checkpoints.make("deepseek-r1", root), "deepseek-r1", "x", root)
    with pytest.raises(AdapterRefused, match="was trained for another model"):
        adapting.add(ledger, fleet, Wanted("qwen", "x", str(other)), root, 5.0)


def test_a_model_without_room_says_how_to_give_it_some(ledger: Ledger, fleet: Fleet, root: Path) -> None:
    models = {"qwen": fleet.models["qwen"].model_copy(update={"lora": None})}
    with pytest.raises(AdapterRefused, match=r"no room for adapters; give it `lora: \{max_rank: 16\}`"):
        adapting.add(ledger, fleet.model_copy(update={"models": models}), Wanted("qwen", "a", "small:lora"), root, 5.0)


def test_on_the_command_line(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch,
                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FLOTILLA_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "checkpoints").symlink_to(root)
    add("qwen", "tone", "small:lora", ["demo"], "our tone", False, False, FILE)
    assert capsys.readouterr().out.startswith("added qwen:tone (lora_")
    list_(False, FILE, json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["adapter"], row["tenants"], row["rank"]) == ("qwen:tone", ["demo"], 8)
    remove("qwen", "tone", FILE)
    assert "removed qwen:tone" in capsys.readouterr().out
    list_(True, FILE)
    assert "removed 20" in capsys.readouterr().out
    with pytest.raises(AdapterRefused, match="no adapter qwen:tone was added"):
        remove("qwen", "tone", FILE)
