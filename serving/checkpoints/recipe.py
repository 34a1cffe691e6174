"""What a recipe is: architecture class, sizes, markers, stop tokens, chat template.

Values only, and light: nothing here imports torch or transformers, reads a clock or writes a file. Everything a
checkpoint is made from enters `Recipe.digest`, so that a changed recipe gets a new folder instead of reusing an old
one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

# Raise it when the way of building changes (tokenizer training, how weights are drawn, files written).
RECIPE_VERSION = 2
VOCABULARY = 2048
CONTEXT = 4096

_HERE = Path(__file__).parent


class CheckpointError(ValueError):
    """A checkpoint cannot be made; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Markers:
    """The tokens that are not text. Control markers have the first ids, visible ones the last.

    control  never shown to a client: vLLM drops them from the text it returns
    visible  single tokens that stay in the text, because parsers look for them there (thoughts, tool calls)
    stop     tokens that end an answer; `eos` is one of them
    ends_number  the control marker that follows a call's number, where calls are numbered
    sequels  pairs of markers of which the second follows the first, so that calls end
    otherwise  such pairs that count where a grammar forbids the first's sequel
    bos_before_text  whether `bos` is put before a bare prompt, as this family's own tokenizer does
    """

    control: tuple[str, ...]
    eos: str
    pad: str
    bos: str | None = None
    visible: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    ends_number: str | None = None
    sequels: tuple[tuple[str, str], ...] = ()
    otherwise: tuple[tuple[str, str], ...] = ()
    bos_before_text: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """One family. `sizes` are arguments of the architecture's configuration class; `also` is written to
    config.json as it stands, for keys that vLLM reads and that class does not know or would not write;
    `files` are further JSON files, {path in the folder: value}; `token_arguments` are arguments that take a marker's
    id, {argument: marker}; `centred_norms`: norms multiply by one more than their weight; `vocabulary`: a published
    vocabulary instead of one trained here (`serving.checkpoints.vocabularies`); `needs`: for people, what has to be
    there to make or serve it. An architecture made of parts has its language model's sizes under `text_config`."""

    family: str
    architecture: str
    markers: Markers
    template: str
    sizes: Mapping[str, Any]
    also: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    token_arguments: Mapping[str, str] = field(default_factory=dict)
    centred_norms: bool = False
    vocabulary: str | None = None
    needs: str = ""

    def chat_template(self) -> str:
        """The Jinja source of the family's chat template."""
        return (_HERE / "templates" / f"{self.template}.jinja").read_text(encoding="utf-8")

    def digest(self) -> str:
        """12 hex digits that change whenever the checkpoint would."""
        later = ("files", "token_arguments", "centred_norms", "vocabulary")
        values = {name: value for name, value in asdict(self).items()
                  if name != "needs" and (name not in later or value)}
        parts = [RECIPE_VERSION, VOCABULARY, CONTEXT, corpus(), self.chat_template(), values]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@cache
def corpus() -> str:
    """The text that tokenizers are trained on: English prose, dialogue, code and JSON, written for this."""
    return (_HERE / "corpus.txt").read_text(encoding="utf-8")
