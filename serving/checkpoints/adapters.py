"""Small LoRA adapters for the checkpoints made here, in the form that PEFT writes.

An adapter is noise of rank 8 on every projection of its base, strong enough that greedy text differs from the
base's, and drawn from its name, so that two adapters of one base differ too. What holds the base's habits stays
untouched, so that structured answers still end. Importing this must stay cheap.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from serving.checkpoints.recipes import recipe_for
from serving.checkpoints.store import publish

ADAPTERS = ("lora",)  # kinds that `small:` may name
_VERSION = 1
_RANK = 8
_STRENGTH = 0.25  # of the base's own weights, roughly
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_adapter(base: Path, family: str, name: str, root: Path) -> Path:
    """A LoRA adapter called `name` for the checkpoint of `family` at `base`: its folder below root, built or reused.

    Raises UnknownCheckpoint for a family that has no recipe, ValueError for one without dense projections.
    """
    seed = f"{recipe_for(family).digest()}/{name}/{_VERSION}/{_RANK}/{_STRENGTH}"
    digest = hashlib.sha256(seed.encode()).hexdigest()[:12]
    title = f"{family}-lora"
    return publish(Path(root) / f"{title}-{digest}", title, lambda folder: _write(base, f"{title}/{name}", folder))


def _write(base: Path, seed: str, folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from serving.checkpoints.build import draw

    tensors: dict[str, torch.Tensor] = {}
    for key, weight in load_file(base / "model.safetensors").items():
        module = key.removesuffix(".weight")
        if module.rpartition(".")[2] not in _TARGETS or ".experts." in key:
            continue
        rows, columns = weight.shape
        down, up = draw(seed, f"{module}.A", (_RANK, columns)), draw(seed, f"{module}.B", (rows, _RANK))
        up[(weight == 0).all(dim=1)] = 0  # channels of the base's habits
        tensors[f"base_model.model.{module}.lora_A.weight"] = down.to(torch.bfloat16)
        # draw() scales by fan-in: of the rank here, so that A and B together are as strong as the base
        tensors[f"base_model.model.{module}.lora_B.weight"] = (up * _STRENGTH).to(torch.bfloat16).contiguous()
    if not tensors:
        raise ValueError(f"{base} has none of the layers that an adapter could change: {', '.join(_TARGETS)}")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base.name, "r": _RANK,
        "lora_alpha": 2 * _RANK, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
        "target_modules": sorted({name.split(".")[-3] for name in tensors}), "inference_mode": True,
        "init_lora_weights": True, "use_dora": False, "use_rslora": False, "modules_to_save": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
