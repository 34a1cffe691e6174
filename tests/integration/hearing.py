"""A small Whisper, for the families' run: true configuration class and tokens, random weights, and sounds for it.

Not among `serving.checkpoints`' families: those are models that chat. May not happen in here: engines, HTTP.
"""

from __future__ import annotations

import io
import json
import math
import struct
import wave
from pathlib import Path

_LANGUAGES = ("en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr", "pl", "ca", "nl", "ar", "sv", "it")
_CONTROL = ("<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in _LANGUAGES), "<|translate|>",
            "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")
_RATE_HZ, _WINDOW_S = 16_000, 30
_HEARD = {"feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor",
          "feature_size": 80, "sampling_rate": _RATE_HZ, "hop_length": 160, "chunk_length": _WINDOW_S, "n_fft": 400,
          "nb_max_frames": 3_000, "n_samples": _RATE_HZ * _WINDOW_S, "padding_side": "right", "padding_value": 0.0,
          "return_attention_mask": False}
# As drawn, all of a sound weighs the same in every word, and every sound says the same.
_LOUDER = {"encoder_attn.q_proj": 5, "encoder_attn.k_proj": 5, "encoder_attn.v_proj": 10, "encoder_attn.out_proj": 10}


def make(folder: Path) -> Path:
    """A checkpoint that vLLM loads as WhisperForConditionalGeneration, in `folder`, which must be empty or absent."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from serving.checkpoints import build, tokenizer
    from serving.checkpoints.recipe import Markers, Recipe

    markers = Markers(control=_CONTROL, bos="<|startoftranscript|>", eos="<|endoftext|>", pad="<|endoftext|>",
                      stop=("<|endoftext|>",))
    words = tokenizer.train(Recipe("whisper", "WhisperForConditionalGeneration", markers, "llama3", {}))
    words.chat_template = None
    config = WhisperConfig(
        vocab_size=len(words), d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=128, decoder_ffn_dim=128, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, decoder_start_token_id=words.bos_token_id)
    config.dtype = torch.bfloat16
    model = WhisperForConditionalGeneration(config).to(torch.bfloat16)
    for name, tensor in model.state_dict().items():
        louder = next((times for part, times in _LOUDER.items() if part in name and "weight" in name), 1)
        tensor.copy_(build.draw("whisper", name, tuple(tensor.shape)) * louder)
    # never said: control tokens and single bytes, which all look alike as text. The input's too: the two are one
    model.get_output_embeddings().weight.data[: len(_CONTROL) + 256] = 0
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_HEARD))
    return folder


def sound(seconds: float = 2.0, from_hz: float = 300.0) -> bytes:
    """A WAV file: a tone that rises."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE_HZ)
        file.writeframes(b"".join(
            struct.pack("<h", int(9_000 * math.sin(2 * math.pi * at / _RATE_HZ * (from_hz + at / 200))))
            for at in range(int(seconds * _RATE_HZ))))
    return written.getvalue()
