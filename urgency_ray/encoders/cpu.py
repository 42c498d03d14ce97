"""Wav2vec-like models made fast on CPUs, with the same results: the convolutional front end as matrix products, int8 layers."""

from __future__ import annotations

import ctypes
import sys
import warnings
from typing import Any

import torch
from torch import Tensor, nn

# Of mallopt(3): the most that glibc takes for each.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_BYTES, TRIM_BYTES = 32 * 2**20, 2**31 - 1
# Frames of one pass through the front end. The first layers are 64 times as long as the last and hold 6.5 MB for each audio
# second: a tile keeps them in cache. Shorter tiles lose to overhead and to samples seen twice.
TILE_FRAMES = 100


class StridedConv(nn.Module):
    """A `Conv1d` without padding over rows (T, C), as matrix products that copy nothing.

    With channels last, the samples under an output row are consecutive, so the input is its own matrix of patches. A matrix
    may not overlap itself in BLAS: the kernel is cut into pieces of at most `stride` taps, a product each.

    Args:
        conv: kernel K, stride s, C channels in, O out; no groups, no padding.
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        self.pieces = nn.ModuleList()
        for start in range(0, self.kernel, self.stride):
            taps = conv.weight[:, :, start : start + self.stride].transpose(1, 2).flatten(1)
            piece = nn.Linear(taps.shape[1], taps.shape[0], bias=start == 0 and conv.bias is not None)
            piece.weight = nn.Parameter(taps.detach().clone(), requires_grad=False)
            if piece.bias is not None and conv.bias is not None:
                piece.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
            self.pieces.append(piece)

    def forward(self, rows: Tensor) -> Tensor:
        """(T, C), contiguous, to ((T - K) // s + 1, O)."""
        num_rows, num_channels = (len(rows) - self.kernel) // self.stride + 1, rows.shape[1]
        total: Tensor | None = None
        for index, piece in enumerate(self.pieces):
            taps = min(self.stride, self.kernel - index * self.stride)
            offset = rows.storage_offset() + index * self.stride * num_channels
            patches = rows.as_strided((num_rows, taps * num_channels), (self.stride * num_channels, 1), offset)
            if total is None:
                total = piece(patches)
            elif isinstance(piece, nn.Linear):
                total.addmm_(patches, piece.weight.t())
            else:
                total += piece(patches)
        assert total is not None
        return total


class FrontEnd(nn.Module):
    """The feature encoder of wav2vec 2.0 with layer norm (also XLSR's, data2vec's), channels last and in tiles.

    transformers keeps channels first: each layer norm then transposes twice, and every layer of a long call leaves the cache.

    Args:
        conv_layers: of the model's `feature_extractor`: convolution, layer norm and activation each.
    """

    def __init__(self, conv_layers: nn.ModuleList) -> None:
        super().__init__()
        layers: list[Any] = list(conv_layers)
        convs = [StridedConv(layer.conv) for layer in layers]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(layer.layer_norm for layer in layers)
        self.activations = nn.ModuleList(layer.activation for layer in layers)
        # Samples from one frame to the next, and samples that a frame sees.
        self.hop, self.field = 1, 1
        for conv in convs:
            self.field += (conv.kernel - 1) * self.hop
            self.hop *= conv.stride

    def forward(self, waveforms: Tensor) -> Tensor:
        """(B, num_samples) to (B, C, T), as transformers' module gives it."""
        num_frames = (waveforms.shape[1] - self.field) // self.hop + 1
        return torch.stack([self._encode(waveform, num_frames) for waveform in waveforms]).transpose(1, 2)

    def _encode(self, waveform: Tensor, num_frames: int) -> Tensor:
        tiles = []
        for start in range(0, num_frames, TILE_FRAMES):
            stop = min(start + TILE_FRAMES, num_frames)
            rows = waveform[start * self.hop : (stop - 1) * self.hop + self.field].unsqueeze(1)
            for conv, norm, activation in zip(self.convs, self.norms, self.activations, strict=True):
                rows = activation(norm(conv(rows)))
            tiles.append(rows)
        return torch.cat(tiles)


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


def quantise(model: nn.Module) -> None:
    """Make every linear layer of `model` an `Int8Linear`."""
    for name, child in model.named_children():
        if isinstance(child, nn.Linear):
            setattr(model, name, Int8Linear(child))
        else:
            quantise(child)


def keep_freed_memory() -> None:
    """Have this process keep the memory that its models free for the next batch, up to 2 GiB. Only glibc needs it, and can.

    It gives large blocks back to the kernel, which clears every page when it hands them out again: 3,600 pages for each audio
    second, 3 % of an encoder's time, and more while others use the machine's memory. See mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
