"""Who comes: the kinds of users that a scenario may name, strict and frozen.

A kind says how long prompts and answers are, how many turns there are and what goes with them (shared system
prompt, tools, images). Everybody's texts are made by `workloads`; nothing in here is random.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from loadtests.distributions import Count, Distribution, NotNegative, Positive, Share
from loadtests.strict import Strict

Tokens = Annotated[int, Field(ge=0)]


class ChatUsers(Strict):
    """People who ask one question: one request per arrival."""

    kind: Literal["chat"]
    weight: Positive = 1.0
    prompt_tokens: Distribution
    output_tokens: Distribution
    stream_share: Share = 1.0


class ReasoningUsers(Strict):
    """People who ask one hard question: a short prompt and a long answer. `system_tokens` are shared."""

    kind: Literal["reasoning"]
    weight: Positive = 1.0
    system_tokens: Tokens = 0
    prompt_tokens: Distribution
    output_tokens: Distribution
    stream_share: Share = 1.0


class ConversationUsers(Strict):
    """People who talk on: every turn sends the shared system prompt and the whole history with the model's
    replies.
    """

    kind: Literal["conversation"]
    weight: Positive = 1.0
    system_tokens: Tokens = 0
    turns: Distribution
    prompt_tokens: Distribution
    output_tokens: Distribution
    think_time_s: NotNegative = 1.0
    """Mean of the exponential pause between a reply and the next turn, seconds."""
    stream_share: Share = 1.0


class AgentUsers(Strict):
    """People who talk to a customer-service agent: a long shared system prompt, tools, several turns.

    tool_share of the turns make the model call a tool; its made-up result of `result_tokens` follows after
    tool_time_s (mean, exponential) as a request of its own. The tool is named in `tool_choice`, so that small
    models and random weights call it too; call_tokens bounds the call.
    """

    kind: Literal["agent"]
    weight: Positive = 1.0
    system_tokens: Tokens = 600
    tools: Annotated[int, Field(ge=1, le=6)] = 4
    tool_share: Share = 0.5
    call_tokens: Count = 96
    result_tokens: Distribution
    tool_time_s: NotNegative = 0.2
    turns: Distribution
    prompt_tokens: Distribution
    output_tokens: Distribution
    think_time_s: NotNegative = 1.0
    stream_share: Share = 1.0


class Picture(Strict):
    """An image made for each request, in pixels. share: of the turns that carry one; the first always does unless
    share is 0."""

    width: Annotated[int, Field(ge=16, le=4096)] = 224
    height: Annotated[int, Field(ge=16, le=4096)] = 224
    share: Share = 0.5


class ShoppingUsers(AgentUsers):
    """People who show a shop assistant what they look for: as `agent`, with pictures. Needs a model that sees
    unless `image.share` is 0."""

    kind: Literal["shopping"]  # type: ignore[assignment]
    image: Picture = Picture()


class EmbeddingUsers(Strict):
    """Batches of texts to embed: POST /v1/embeddings, `batch` texts of `input_tokens` each. Needs a model of that
    kind. Of its objectives only the TTFT applies, to the whole answer."""

    kind: Literal["embeddings"]
    weight: Positive = 1.0
    batch: Distribution
    input_tokens: Distribution


Users = Annotated[
    ChatUsers | ReasoningUsers | ConversationUsers | AgentUsers | ShoppingUsers | EmbeddingUsers,
    Field(discriminator="kind"),
]


class Slo(Strict):
    """Objectives of one request, milliseconds."""

    ttft_ms: Positive
    tpot_ms: Positive


class Stop(Strict):
    """When a run ends early because going on proves nothing or harms the target; partial results are kept.

    error_share: of the requests done so far, once `after_requests` are. in_flight: requests at once.
    errors: failed requests in all.
    """

    error_share: Annotated[float, Field(gt=0, le=1)] | None = None
    after_requests: Count = 20
    errors: Count | None = None
    in_flight: Count | None = None

    @model_validator(mode="after")
    def _stops(self) -> Stop:
        if self.error_share is None and self.errors is None and self.in_flight is None:
            raise ValueError("names no condition: give error_share, errors or in_flight")
        return self
