"""gpt-oss's vocabulary comes from a file that its user has fetched: found, checked, and put into a checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from serving.checkpoints import CheckpointError, make, vocabularies
from serving.checkpoints.vocabularies import FILE, VARIABLE, MissingVocabulary, found

HERE = bool(os.environ.get(VARIABLE)) and (Path(os.environ[VARIABLE]) / FILE).is_file()
needs_vocabulary = pytest.mark.skipif(not HERE, reason=f"{VARIABLE} names no folder with {FILE}")


def test_without_the_variable_it_says_what_to_fetch_and_where_to() -> None:
    with pytest.raises(MissingVocabulary) as caught:
        found({})
    assert VARIABLE in str(caught.value) and f"/{FILE}" in str(caught.value)


def test_a_folder_without_it_and_another_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingVocabulary, match="there is no"):
        found({VARIABLE: str(tmp_path)})
    (tmp_path / FILE).write_text("IQ== 0\n")
    with pytest.raises(MissingVocabulary, match="SHA-256"):
        found({VARIABLE: str(tmp_path)})


def test_a_checkpoint_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(CheckpointError):
        make("gpt-oss", tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@needs_vocabulary
def test_its_tokens_have_harmonys_numbers(tmp_path: Path) -> None:
    from safetensors import safe_open
    from transformers import AutoTokenizer

    folder = make("gpt-oss", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 201_088 == json.loads((folder / "config.json").read_text())["vocab_size"]
    for number, text in vocabularies._SPECIAL.items():
        assert tokenizer.convert_tokens_to_ids(text) == number
    assert tokenizer.encode("hello world") == [24912, 2375]  # as tiktoken's own o200k_base
    assert tokenizer.decode(tokenizer.encode("Grüße, 你好!\n")) == "Grüße, 你好!\n"
    with safe_open(folder / "model.safetensors", "pt") as weights:
        silent = (weights.get_tensor("lm_head.weight") == 0).all(dim=1)
    assert silent[199_999] and silent[200_013] and not silent[24912]
