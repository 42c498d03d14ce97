"""Models made fast on CPUs: layers packed for bfloat16's kernels, layers in int8, a front end in tiles, memory that is kept."""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from urgency_ray.encoders.front_end import FrontEnd

# Of mallopt(3): the most that glibc takes for each.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_BYTES, TRIM_BYTES = 32 * 2**20, 2**31 - 1


class PackedLinear(nn.Linear):
    """A bfloat16 linear layer whose weights lie in the order in which oneDNN's kernels read them.

    `nn.Linear` has oneDNN order them anew in each pass, a tenth of its time. The weights themselves stay, too: some models read
    them past the layer (WavLM's attention).

    Args:
        linear: in bfloat16, on a CPU.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    def forward(self, values: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(values, self.packed, self.bias, "none", [], "")
        return result


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, a scale for each output, and activations quantised to 8 bits in each pass.

    Krishnamoorthi 2018 (arXiv:1806.08342), sections 3.1.1 and 3.2. The kernels are PyTorch's; its `quantize_dynamic` would use
    7 bits for activations, for processors that lack VNNI.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scales = (weight.abs().amax(dim=1) / 127.0).clamp(min=1e-12).double()
        with warnings.catch_warnings():
            # PyTorch moves its quantisation of whole models to another package; the kernels stay.
            warnings.filterwarnings("ignore", message=".*quantize", category=UserWarning)
            quantised = torch.quantize_per_channel(weight, scales, torch.zeros_like(scales, dtype=torch.long), 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack(quantised, bias)

    def forward(self, values: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        result: Tensor = torch.ops.quantized.linear_dynamic(values, self.packed, reduce_range=False)
        return result


def use_front_end(model: nn.Module) -> None:
    """Put `FrontEnd` in the place of `model.feature_extractor`, where that normalises each frame on its own (layer norm)."""
    layers = getattr(getattr(model, "feature_extractor", None), "conv_layers", None)
    if layers is not None and all(isinstance(getattr(layer, "layer_norm", None), nn.LayerNorm) for layer in layers):
        model.feature_extractor = FrontEnd(layers)


def pack(model: nn.Module) -> None:
    """Make every linear layer of a bfloat16 `model` a `PackedLinear`, where oneDNN has kernels for this processor."""
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        _replace_linear(model, PackedLinear)


def quantise(model: nn.Module) -> None:
    """Make every linear layer of `model` an `Int8Linear`."""
    _replace_linear(model, Int8Linear)


def _replace_linear(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    for name, child in model.named_children():
        if isinstance(child, nn.Linear):
            setattr(model, name, make(child))
        else:
            _replace_linear(child, make)


def keep_freed_memory() -> None:
    """Have this process keep the memory that its models free for the next batch, up to 2 GiB. Only glibc needs it, and can.

    It gives large blocks back to the kernel, which clears every page when it hands them out again: 3,600 pages for each audio
    second, 3 % of an encoder's time, and more while others use the machine's memory. See mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
