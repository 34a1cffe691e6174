"""Byte-level BPE tokenizers, trained on the package's corpus.

Any text goes in and comes out unchanged: all 256 bytes are in the vocabulary, and nothing is normalised or
cleaned up. Training is deterministic. Must not train on anything but the corpus, which is part of the digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from serving.checkpoints.recipe import CONTEXT, VOCABULARY, Recipe, corpus

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def tokenizer_of(recipe: Recipe) -> PreTrainedTokenizerFast:
    """The family's tokenizer: trained here, or a published vocabulary. Raises: MissingVocabulary."""
    if recipe.vocabulary is None:
        return train(recipe)
    from serving.checkpoints import vocabularies

    return vocabularies.harmony(recipe, vocabularies.found())


def train(recipe: Recipe) -> PreTrainedTokenizerFast:
    """The family's tokenizer, exactly VOCABULARY tokens: control markers, bytes, merges, visible markers."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    markers = recipe.markers
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(markers.visible),
        special_tokens=list(markers.control),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator([corpus()], trainer)
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in markers.visible])
    if core.get_vocab_size() != VOCABULARY:
        raise ValueError(
            f"{recipe.family}: the corpus yields {core.get_vocab_size()} tokens, the model has {VOCABULARY}: "
            "lengthen corpus.txt"
        )
    if markers.bos_before_text:
        core.post_processor = processors.TemplateProcessing(
            single=f"{markers.bos} $A",
            pair=f"{markers.bos} $A {markers.bos} $B:1",
            special_tokens=[(markers.bos, core.token_to_id(markers.bos))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=markers.bos,
        eos_token=markers.eos,
        pad_token=markers.pad,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=recipe.chat_template(),
    )


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer.save_pretrained(folder)


def spoken(tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    """{id: text} of the tokens that are text by themselves.

    Left out are markers, parts of characters and control characters: a model that draws one of them streams a
    chunk without text, or ends early.
    """
    decode = tokenizer.backend_tokenizer.decoder.decode
    markers = set(tokenizer.get_added_vocab().values())
    texts = {i: decode([token]) for token, i in tokenizer.get_vocab().items() if i not in markers}
    return {i: text for i, text in texts.items() if all(_shows(character) for character in text)}


def _shows(character: str) -> bool:
    # Decoding puts U+FFFD where bytes are not a whole character; the corpus has none of its own.
    return character in "\n\r\t" or (character.isprintable() and character != "\ufffd")
