"""What the requests say: plain English text of a wanted length, and the body of a chat completion.

Text is made of common words from a list in this module, so that a run needs no data set and no network. It is
deterministic in its seed. Lengths are approximate: the tokens that were really used are in the records.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loadtests.arrivals import Arrival, Turn
from loadtests.scenario import MixModel, Scenario

Message = dict[str, str]

WORDS = tuple(
    """
    the a this that each some every no our their one two three first last next same other such more most
    few time day year week people way water work world life hand part place case point house home room
    city country company number group problem fact question answer reason idea plan order system service
    model report story letter book page word line name side end head door road river tree garden light
    morning evening night winter summer market price money value cost team member friend family child
    parent teacher student doctor driver is was has had can could will would should may might must does
    did makes made takes took gives gave finds found keeps kept tells told asks asked needs wants looks
    seems feels shows moves lives brings writes reads good new old long great little own right big high
    small large early young important public able clear simple open strong whole free ready warm cold
    quiet quick slow sure best better hard easy of to in for on with at by from about into over after
    under between through during before without against and or but if when while because then so than as
    also only just even still again always never often here there now today once soon together perhaps
    almost enough quite rather very well
    """.split()
)


def text_of(words: int, seed: int) -> str:
    """`words` words in sentences; equal for equal arguments."""
    rng = np.random.default_rng(seed)
    picks = [WORDS[i] for i in rng.integers(0, len(WORDS), size=max(1, words))]
    sentences = []
    while picks:
        length = int(rng.integers(6, 15))
        sentence, picks = picks[:length], picks[length:]
        sentences.append(" ".join(sentence).capitalize() + ".")
    return " ".join(sentences)


def system_prompt(scenario: Scenario, arrival: Arrival) -> Message | None:
    """The system message that all conversations of one model share, or None for users without one."""
    if not arrival.system_tokens:
        return None
    seed = zlib.crc32(f"{scenario.seed}/{arrival.model}".encode())
    return {"role": "system", "content": text_of(_words(scenario, arrival.system_tokens), seed)}


def user_message(scenario: Scenario, turn: Turn) -> Message:
    """What the user says in one turn."""
    return {"role": "user", "content": text_of(_words(scenario, turn.prompt_tokens), turn.text_seed)}


def reply_message(text: str) -> Message:
    """The model's own reply as history for the next turn."""
    return {"role": "assistant", "content": text}


def body_of(
    scenario: Scenario, arrival: Arrival, turn: Turn, messages: Sequence[Message]
) -> Mapping[str, Any]:
    """The JSON body of POST /v1/chat/completions for one turn."""
    model: MixModel = scenario.models[arrival.model]
    body: dict[str, Any] = {
        **model.extra_body,
        "model": arrival.model,
        "messages": list(messages),
        "max_tokens": turn.output_tokens,
        "stream": turn.stream,
    }
    if turn.stream:
        body["stream_options"] = {"include_usage": True}
    if scenario.exact_output:
        body["ignore_eos"] = True
    return body


def _words(scenario: Scenario, tokens: int) -> int:
    return max(1, round(tokens * scenario.words_per_token))
