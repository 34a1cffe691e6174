"""LoRA adapters as files: where one is, and whether a model can take it, told before anyone asks for it.

An engine that cannot load an adapter says so to whoever calls it first; here it is said once, to whoever adds it. May
not happen in here: Ray, vLLM, torch, the ledger.
"""

from serving.adapters.inspecting import Base, inspect
from serving.adapters.sources import folder_of

__all__ = ["Base", "folder_of", "inspect"]
