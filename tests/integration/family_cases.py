"""Every family that is served live: its small checkpoint, how vLLM has to be told about it, and what it cannot do here.

Plain values. The engine arguments are those that the published models need too (parsers, runner, overrides); sizes are
the small checkpoints'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CHAT_CHECKS = ("chat", "stream", "logprobs", "max_tokens", "stop", "schema", "tool", "reasoning", "cached", "cost",
               "image")
CHECKS = (*CHAT_CHECKS, "embed", "rerank", "hear")
NO_THOUGHTS = "it does not think"
NO_IMAGES = "text only"
NO_MLA_CACHE = "vLLM's latent attention keeps no prefix cache on a CPU"
HARMONY_STOP = "vLLM reads harmony from tokens: an answer ends at a stop text, but the text stays in it"
NO_STATE_CACHE = "vLLM keeps no prefix cache of linear attention's state here"


@dataclass(frozen=True)
class Case:
    """One family.

    `quiet`: what a request carries so that the model answers without thinking; `aloud`: so that it thinks.
    `thought_end`: the marker that ends a thought; None: it does not think. `end_bias`: how much likelier it has to be
    made so that noise draws it about once in ten tokens. `turns`: thoughts and answers are messages that may alternate,
    so that noise mixes them: a draw is taken that does not. `args`: further engine arguments. `lacks`: checks that
    cannot hold here, with why. `context`: tokens at most, where the laptop\'s are too many.
    """

    family: str
    architecture: str
    kind: Literal["chat", "embed", "rerank", "hear"] = "chat"
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    thought_end: str | None = None
    end_bias: float = 7.0
    turns: bool = False
    quiet: Mapping[str, Any] = field(default_factory=dict)
    aloud: Mapping[str, Any] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict)
    image: bool = False
    context: int | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def checks(self) -> tuple[str, ...]:
        """Those that apply."""
        if self.kind == "hear":
            return ("hear",)
        if self.kind != "chat":
            return (self.kind, "cost")
        skipped = ({"reasoning"} if self.thought_end is None else set()) | (set() if self.image else {"image"})
        return tuple(check for check in CHAT_CHECKS if check not in skipped and check not in self.lacks)

    def why_not(self, check: str) -> str:
        """Why a check does not apply; empty for one that is of another kind of model."""
        if check in self.lacks:
            return self.lacks[check]
        if self.kind != "chat":
            return ""
        return {"reasoning": NO_THOUGHTS, "image": NO_IMAGES}.get(check, "")


def _template(**options: Any) -> dict[str, Any]:
    return {"chat_template_kwargs": options}


CASES = (
    Case("qwen3", "Qwen3ForCausalLM", tool_parser="hermes", reasoning_parser="qwen3", thought_end="</think>",
         quiet=_template(enable_thinking=False)),
    Case("qwen3-moe", "Qwen3MoeForCausalLM", tool_parser="hermes", reasoning_parser="qwen3", thought_end="</think>",
         quiet=_template(enable_thinking=False)),
    Case("qwen3-next", "Qwen3NextForCausalLM", tool_parser="hermes", reasoning_parser="qwen3", thought_end="</think>",
         quiet=_template(enable_thinking=False), lacks={"cached": NO_STATE_CACHE}),
    Case("qwen3-vl", "Qwen3VLForConditionalGeneration", tool_parser="hermes", image=True,
         args={"limit_mm_per_prompt": {"image": 2, "video": 0}}),
    Case("qwen3-embedding", "Qwen3ForCausalLM", kind="embed", args={"runner": "pooling"}),
    Case("qwen3-reranker", "Qwen3ForCausalLM", kind="rerank", args={"runner": "pooling", "hf_overrides": {
        "architectures": ["Qwen3ForSequenceClassification"], "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True}}),
    # vLLM's deepseek_r1 takes all for thought until the marker; deepseek_v3 does so only where thinking was asked for
    Case("deepseek-r1", "DeepseekV3ForCausalLM", tool_parser="deepseek_v3", reasoning_parser="deepseek_v3",
         thought_end="</think>", quiet=_template(thinking=False), aloud=_template(thinking=True),
         lacks={"cached": NO_MLA_CACHE}),
    Case("kimi-k2", "DeepseekV3ForCausalLM", tool_parser="kimi_k2", reasoning_parser="kimi_k2", thought_end="</think>",
         quiet=_template(thinking=False), lacks={"cached": NO_MLA_CACHE}),
    Case("seed-oss", "SeedOssForCausalLM", tool_parser="seed_oss", reasoning_parser="seed_oss",
         thought_end="</seed:think>", quiet=_template(thinking_budget=0, enable_thinking=False)),
    Case("llama", "LlamaForCausalLM", tool_parser="llama3_json"),
    Case("llama4", "Llama4ForConditionalGeneration", tool_parser="llama4_pythonic", image=True,
         args={"limit_mm_per_prompt": {"image": 2}}),
    # Its thoughts end with a message, and thinking is a channel of which a request can forbid the name. Among 200,000
    # tokens noise breaks harmony's form once in fifty; among the fifty likeliest it hardly does.
    Case("gpt-oss", "GptOssForCausalLM", tool_parser="openai", reasoning_parser="openai_gptoss", thought_end="<|end|>",
         end_bias=9.0, turns=True, quiet={"logit_bias": {"analysis": -100}}, aloud={"top_k": 50},
         lacks={"stop": HARMONY_STOP}),
    Case("whisper", "WhisperForConditionalGeneration", kind="hear", context=448),
)
# Not to be had on a CPU with this vLLM.
NOT_HERE = {
    "deepseek-v3.2": "sparse latent attention (DeepseekV32ForCausalLM) has no kernel for CPUs in vLLM 0.29",
    "kimi-linear": "its linear attention (KimiLinearForCausalLM) has no kernel for CPUs in vLLM 0.29",
}


def case_of(family: str) -> Case:
    """The family's case. Raises: KeyError."""
    return {case.family: case for case in CASES}[family]
