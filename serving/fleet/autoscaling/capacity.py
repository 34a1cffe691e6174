"""What one replica can take within a model's promises, from its step model: requests per second of a given kind.

In a steady state a replica's step takes tau = fixed / (1 - rate * w), where w is the time that one request's own tokens
add to all steps it is in. From that follow the limits: tau within the promised time per token; seats and KV tokens for
rate * output * tau requests at once; and prompts that wait for each other's (an M/G/1 queue's mean wait, Pollaczek and
Khinchine, of which the 95th percentile is taken as three times the mean) within the promised time to first token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.fleet.autoscaling.signals import Sums, Variant
from serving.fleet.slos import Slo

_TAIL = 3.0  # 95th percentile of an exponential wait over its mean


@dataclass(frozen=True)
class Mix:
    """What requests are like, means per request, tokens. squared: mean square of `computed`."""

    prompt: float
    computed: float
    squared: float
    output: float

    @classmethod
    def of(cls, sums: Sums) -> Mix | None:
        """Means of so many answered requests; None of none."""
        n = sums.finished
        if n <= 0:
            return None
        return cls(sums.prompt / n, sums.computed / n, sums.computed_squared / n, max(1.0, sums.output / n))


@dataclass(frozen=True)
class Capacity:
    """Requests per second of one replica, how many it then has at once, and which limit it is."""

    per_s: float
    at_once: float
    limit: str


def prompt_seconds(variant: Variant, mix: Mix, tokens: float) -> float:
    """Engine seconds to compute a prompt of so many tokens, in chunks, on top of what the cache had."""
    m, cached = variant.steps, max(0.0, mix.prompt - mix.computed)
    chunks = math.ceil(tokens / variant.batched_tokens)
    return m.fixed * chunks + m.token * tokens + m.attention * tokens * (cached + tokens / 2) + m.cache * cached


def capacity(variant: Variant, mix: Mix, slo: Slo) -> Capacity:
    """The highest rate at which a replica keeps its promises on average."""
    m, tau, ttft = variant.steps, slo.tpot_ms / 1e3, slo.ttft_ms / 1e3
    cached = max(0.0, mix.prompt - mix.computed)
    prompt = m.token * mix.computed + m.attention * (mix.squared / 2 + mix.computed * cached) + m.cache * cached
    context = mix.prompt + mix.output / 2
    decodes = max(0.0, mix.output - 1)
    own = prompt + decodes * (m.token + (m.attention + m.cache) * context)
    own = max(own, 1e-9)

    def at_once(rate: float) -> float:
        """Requests in the batch at that rate."""
        return rate * (mix.output * m.fixed / max(1e-9, 1 - rate * own) + prompt)

    found = {"tpot": max(0.0, 1 - m.fixed / tau) / own}
    # rate * output * fixed / (1 - rate * own) <= most  <=>  rate <= most / (output * fixed + most * own)
    for name, most in (("seats", variant.seats), ("kv", variant.kv_tokens / max(1.0, mix.prompt + mix.output / 2))):
        found[name] = most / (mix.output * m.fixed + most * own)
    found["ttft"] = _by_first_token(variant, mix, ttft, own)
    limit = min(found, key=lambda name: found[name])
    rate = found[limit]
    return Capacity(rate, at_once(min(rate, 0.999 / own)), limit)


def _by_first_token(variant: Variant, mix: Mix, ttft: float, own: float) -> float:
    """The rate at which prompts wait for each other so long that the time to first token is reached."""
    if mix.computed <= 0:
        return 1 / own
    mean = prompt_seconds(variant, mix, mix.computed)
    second = (mean / mix.computed) ** 2 * mix.squared
    typical = prompt_seconds(variant, mix, math.sqrt(mix.squared))
    spare = ttft - typical - variant.steps.fixed
    if spare <= 0:
        return 1 / own / 2  # long prompts are late however many replicas there are; do not add them without end
    # wait95 = tail * rate * second / (2 * (1 - rate * own)) <= spare
    return spare / (_TAIL * second / 2 + spare * own)


def shortest_ms(variant: Variant, prompt_tokens: int = 1) -> tuple[float, float]:
    """(time to first token, time per output token) of a lonely request: no policy can promise less. Milliseconds."""
    m = variant.steps
    first = m.fixed * math.ceil(prompt_tokens / variant.batched_tokens) + m.token * prompt_tokens
    first += m.attention * prompt_tokens * (prompt_tokens - 1) / 2
    return first * 1e3, (m.fixed + m.token + (m.attention + m.cache) * prompt_tokens) * 1e3


def impossible(variant: Variant, slo: Slo) -> str:
    """Why no number of such replicas keeps the promises, with the numbers; empty: nothing speaks against them."""
    first, token = shortest_ms(variant)
    if first <= slo.ttft_ms and token <= slo.tpot_ms:
        return ""
    return (f"impossible: a lonely request of one token takes {first:.3g} ms to its first token (promised "
            f"{slo.ttft_ms:g}) and {token:.3g} ms per further one (promised {slo.tpot_ms:g}), however many replicas "
            "there are")
