"""Which arithmetic `dtype: auto` stands for on a device, by what its processor has instructions for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

BFLOAT16_GPU = (8, 0)
"""Compute capability from which NVIDIA's GPUs have bfloat16 (Ampere); V100 and T4 emulate it."""
LEAST_GAIN = 1.3
"""Times as fast as float32 that bfloat16's products must be, where only a race can tell: less is lost again around them."""
RACE_SHAPE = (512, 768, 768)
RACE_LAPS = 5


class Arithmetic(NamedTuple):
    """A floating type by the name that the config has for it, and what speaks for it."""

    dtype: str
    reason: str


def best_arithmetic(device: str) -> Arithmetic:
    """The fastest arithmetic on `device` (`cpu`, `cuda`) whose embeddings are float32's but for rounding.

    On CPUs with AMX that is bfloat16 (products 7 times as fast). With avx512_bf16 alone, or Arm's bf16, it depends on the
    processor, and a race of a few milliseconds decides; without any of them bfloat16 is emulated, and up to 100 times slower.
    """
    if device.startswith("cuda"):
        capability = torch.cuda.get_device_capability()
        dtype = "bfloat16" if capability >= BFLOAT16_GPU else "float16"
        return Arithmetic(dtype, f"a GPU of compute capability {capability[0]}.{capability[1]}")
    found = torch.cpu.get_capabilities()
    has_kernels: Any = torch.backends.mkldnn.is_available
    if not has_kernels():
        return Arithmetic("float32", "PyTorch has no oneDNN here")
    if found.get("amx_bf16"):
        return Arithmetic("bfloat16", "the CPU has AMX")
    name = next((name for name in ("avx512_bf16", "bf16") if found.get(name)), None)
    if name is None:
        return Arithmetic("float32", "the CPU has no instructions for bfloat16")
    gain = bfloat16_gain()
    dtype = "bfloat16" if gain >= LEAST_GAIN else "float32"
    return Arithmetic(dtype, f"the CPU has {name}, products {gain:.1f} times as fast as float32's")


def most_exact(found: Sequence[Arithmetic]) -> Arithmetic:
    """The one of several processors' arithmetics that all of them compute in: float32, else float16, else bfloat16."""
    return min(found, key=lambda each: ("float32", "float16", "bfloat16").index(each.dtype))


def bfloat16_gain() -> float:
    """How many times as fast as in float32 a product in bfloat16 is on this CPU, each at its best of some laps."""
    rows, width, outputs = RACE_SHAPE
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        values, weight = torch.ones(rows, width, dtype=dtype), torch.ones(outputs, width, dtype=dtype)
        laps = []
        for _ in range(RACE_LAPS):
            started = time.perf_counter()
            functional.linear(values, weight)
            laps.append(time.perf_counter() - started)
        best[dtype] = min(laps)
    return best[torch.float32] / best[torch.bfloat16]


def recompute_overflows(model: nn.Module) -> None:
    """Have a float16 `model` compute again in float32 what overflowed: float16 ends at 65,504.

    Looking costs a wait for the device after each batch.
    """

    def repeat(model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        if torch.isfinite(output[0]).all():
            return None
        model.float()
        try:
            return model.forward(*map(_to_float32, inputs), **{name: _to_float32(value) for name, value in named.items()})
        finally:
            model.half()

    model.register_forward_hook(repeat, with_kwargs=True)


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
