"""`flotilla prices` shows the price books, what labels lead to, and how tokenizers compare."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from serving.cli.prices import accelerators, counter, list_, ratio
from serving.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "deployments" / "prices" / "accelerators.csv"
Out = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet with one price by name and one by labels."""
    monkeypatch.setenv("COLUMNS", "180")
    path = tmp_path / "fleet.yaml"
    path.write_text(f"""\
name: gpus
prices: {BOOK.with_name("api.json")}
accelerator_prices: {BOOK}
accelerators:
  cheap: {{kind: gpu, type: H100, memory_gib: 80, price: {{provider: nebius, capacity: spot}}}}
  node: {{kind: gpu, type: H100, memory_gib: 80, price: {{from_node_labels: true}}}}
models:
  qwen: {{source: org/qwen, architecture: Qwen3ForCausalLM, accelerator: node, slo: {{ttft_ms: 1, tpot_ms: 1}}}}
tenants: {{demo: {{}}}}
""")
    return path


def words(folder: Path) -> Path:
    """A tokenizer that counts words."""
    made = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    made.pre_tokenizer = Whitespace()
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    return folder


def letters(file: Path) -> Path:
    """A vocabulary of tiktoken that has bytes only, so that it counts bytes."""
    file.write_bytes(b"".join(base64.b64encode(bytes([n])) + b" %d\n" % n for n in range(256)))
    return file


def test_api_prices_are_listed_with_the_books_version(file: Path, capsys: Out) -> None:
    list_(file, "LUNA")
    out = capsys.readouterr().out
    assert ["gpt-6-luna", "0.1", "0.01", "0.5", "0.05", "0.25"] in [line.split() for line in out.splitlines()]
    assert "price book 2026-11-23-" in out and "claude" not in out
    list_(file, json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["usd_per_token"]["gpt-6-luna"]["batch_output"] == 2.5e-7 and len(told["unpriced"]) == 3


def test_accelerator_prices_are_listed_with_what_is_not_offered(file: Path, capsys: Out) -> None:
    accelerators(file)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["H100", "nebius", "on", "demand", "2.95", "2026-11-23T00:00:00Z"] in rows
    assert ["B200", "lambda", "spot", "not", "offered", "2026-11-23T00:00:00Z"] in rows
    accelerators(file, json=True)
    told = json.loads(capsys.readouterr().out)
    assert len(told["rows"]) == 26 and told["rows"][0]["usd_per_hour"] == 6.88


def test_another_book_can_be_named(file: Path, capsys: Out, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("\n".join(BOOK.read_text().splitlines()[2:4]))
    accelerators(file, other, json=True)
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 1
    with pytest.raises(ConfigError, match="none.csv: the accelerator price book cannot be read"):
        accelerators(file, tmp_path / "none.csv")


def test_labels_lead_to_what_each_profile_costs(file: Path, capsys: Out) -> None:
    labels = ["node.kubernetes.io/instance-type=p5.48xlarge", "karpenter.sh/capacity-type=spot"]
    accelerators(file, label=labels)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cheap", "1.25"] in rows and ["node", "2.12"] in rows
    accelerators(file, label=labels, json=True)
    assert json.loads(capsys.readouterr().out)["node"] == [{"from": 0.0, "usd_per_hour": 2.12}]


@pytest.mark.parametrize("label", ["", "a", "=b"])
def test_a_label_that_is_none_is_refused(label: str, file: Path) -> None:
    with pytest.raises(ConfigError, match="write it as KEY=VALUE"):
        accelerators(file, label=[label])


def test_a_ratio_says_what_to_put_into_the_fleet_file(tmp_path: Path, capsys: Out) -> None:
    ours, theirs = words(tmp_path / "ours"), letters(tmp_path / "o200k_base.tiktoken")
    text = tmp_path / "text.txt"
    text.write_text("two words")
    ratio(str(ours), str(theirs), text)
    out = capsys.readouterr().out
    assert "token_ratio: 4.5000" in out
    assert 'token_ratio_source: "o200k_base.tiktoken and ours on text.txt, 9 characters"' in out
    ratio(str(theirs), str(ours / "tokenizer.json"), text, json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["ours"], told["theirs"], told["token_ratio"]) == (9, 2, 0.2222)


def test_a_text_that_says_nothing_is_refused(tmp_path: Path) -> None:
    ours, text = words(tmp_path / "ours"), tmp_path / "text.txt"
    text.write_text(" ")
    with pytest.raises(ConfigError, match=r"text\.txt: cannot tell a ratio from 0 and 0 tokens; use a longer text"):
        ratio(str(ours), str(ours), text)
    with pytest.raises(ConfigError, match=r"none\.txt: cannot be read"):
        ratio(str(ours), str(ours), tmp_path / "none.txt")


@pytest.mark.parametrize("stem", ["cl100k_base", "o200k_base"])
def test_text_is_cut_as_the_vocabularys_owner_cuts_it(stem: str, tmp_path: Path) -> None:
    vocabulary = tmp_path / f"{stem}.tiktoken"
    # three digits together and a word with its space are merged, four digits are not
    pairs = [bytes([n]) for n in range(256)] + [b"12", b"123", b"1234", b" a", b"!a"]
    vocabulary.write_bytes(b"".join(base64.b64encode(p) + b" %d\n" % n for n, p in enumerate(pairs)))
    count = counter(vocabulary)
    assert [count(text) for text in ("123", "1234", " a", "a a")] == [1, 2, 1, 2]


def test_what_is_no_tokenizer_is_named_with_what_is(tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "tokenizer.json"
    empty.mkdir()
    broken.write_text("{}")
    (tmp_path / "o200k_base.tiktoken").write_text("?? x")
    for path, said in [(empty, "empty: not a tokenizer"), (broken, "tokenizer.json: not a tokenizer"),
                       (tmp_path / "none", "none: no such tokenizer; give a folder with tokenizer.json"),
                       (tmp_path / "o200k_base.tiktoken", "not a vocabulary of tiktoken"),
                       (tmp_path / "x.tiktoken", "how 'x' cuts text is not known here; known: cl100k_base.tiktoken"),
                       (tmp_path / "cl100k_base.tiktoken", "cl100k_base.tiktoken: no such file")]:
        with pytest.raises(ConfigError, match=said):
            counter(path)
