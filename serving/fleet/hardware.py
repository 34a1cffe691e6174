"""Accelerators by their data sheets, under the names that the price book uses.

Numbers only: dense peaks (data sheets print twice as much "with sparsity"), memory as the driver reports it. Where the
vendor gives no figure for one device, the line says how it was derived. What a replica really reaches is another
matter (`roofline.Efficiency`).
"""

from __future__ import annotations

from serving.fleet.roofline import AcceleratorSpec

_MIB = 1024**2
_NOTE = "memory: as nvidia-smi shows it; by general knowledge, not read on a device here"

SPECS: dict[str, AcceleratorSpec] = {
    spec.name: spec
    for spec in (
        AcceleratorSpec("H100", 81_559 * _MIB, 3.35e12, {"bf16": 989.4e12, "fp8": 1978.9e12}, 450e9,
                        f"NVIDIA H100 SXM data sheet; {_NOTE}"),
        AcceleratorSpec("H200", 143_771 * _MIB, 4.8e12, {"bf16": 989.4e12, "fp8": 1978.9e12}, 450e9,
                        f"NVIDIA H200 SXM data sheet; {_NOTE}"),
        AcceleratorSpec("B200", 183_359 * _MIB, 8.0e12, {"bf16": 2.25e15, "fp8": 4.5e15, "nvfp4": 9.0e15,
                                                         "mxfp4": 9.0e15}, 900e9,
                        f"NVIDIA DGX B200 data sheet, an eighth of it; {_NOTE}"),
        AcceleratorSpec("A100-80GB", 81_920 * _MIB, 2.039e12, {"bf16": 312e12}, 300e9,
                        f"NVIDIA A100 80GB SXM data sheet; {_NOTE}"),
        AcceleratorSpec("L40S", 46_068 * _MIB, 864e9, {"bf16": 362.05e12, "fp8": 733e12}, 32e9,
                        f"NVIDIA L40S data sheet, PCIe 4.0 x16 between devices; {_NOTE}"),
        AcceleratorSpec("L4", 23_034 * _MIB, 300e9, {"bf16": 121e12, "fp8": 242.5e12}, 32e9,
                        f"NVIDIA L4 data sheet, PCIe 4.0 x16 between devices; {_NOTE}"),
    )
}


def spec_of(accelerator: str) -> AcceleratorSpec | None:
    """The data sheet of an accelerator by the price book's name, or None for one that is not known here."""
    return SPECS.get(accelerator)
