"""A vLLM plugin (entry point `vllm.general_plugins`), loaded in every process of an engine before it computes.

Why: on processors with AMX a process must ask the kernel for the tile registers once. vLLM's CPU kernels use them
without asking, which goes well only where another library has asked before; under Ray, where engine processes are
spawned, the first attention step died of an illegal instruction.
"""

from __future__ import annotations


def register() -> None:
    """Ask for the AMX tile registers where the processor has them; elsewhere do nothing."""
    import torch

    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()
