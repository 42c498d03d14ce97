"""The convolutional front end of wav2vec-like models as matrix products in tiles, for CPUs, with the same results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

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


class FirstLayer(nn.Module):
    """The first convolution, which hears single samples, and the layer norm after it, as one product.

    Half of all values of the front end pass here, and a product of few samples each is over before its result is written:
    what counts is how often that is read again. The layer is linear in x, the K samples of a row and a 1 for the bias: A x.
    Less their mean over the O channels, its outputs are A'x, A' = A - mean(A), of variance |Rx|^2 with R'R = A''A' / O. So the
    norm with weight w and bias b is [w A', b] (x / sqrt(|Rx|^2 + eps), 1): scaled are K numbers, not O.

    Args:
        conv: kernel K, any stride, one channel in, O out; no groups, no padding.
        norm: over its O channels.
    """

    def __init__(self, conv: nn.Conv1d, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.kernel, self.stride, self.eps = conv.kernel_size[0], conv.stride[0], norm.eps
        taps = conv.weight.detach().double().squeeze(1)
        bias = torch.zeros(len(taps), 1).double() if conv.bias is None else conv.bias.detach().double().unsqueeze(1)
        affine = torch.cat([taps, bias], dim=1)
        centered = affine - affine.mean(dim=0)
        values, vectors = torch.linalg.eigh(centered.T @ centered / len(centered))
        self.root = nn.Parameter((vectors * values.clamp(min=0).sqrt()).float(), requires_grad=False)
        weight, shift = (value.detach().double().unsqueeze(1) for value in (norm.weight, norm.bias))
        # No linear layer, which might be packed or made int8: to so short rows neither is a gain.
        self.weight = nn.Parameter(torch.cat([weight * centered, shift], dim=1).to(conv.weight), requires_grad=False)

    def forward(self, samples: Tensor) -> Tensor:
        """(T,) to ((T - K) // s + 1, O)."""
        heard = samples.float().unfold(0, self.kernel, self.stride)
        rows = torch.ones(len(heard), self.kernel + 2)
        rows[:, : self.kernel] = heard
        linear = rows[:, :-1]
        linear *= torch.rsqrt((linear @ self.root).square().sum(dim=1, keepdim=True) + self.eps)
        return rows.to(self.weight.dtype) @ self.weight.t()


class FrontEnd(nn.Module):
    """The feature encoder of wav2vec 2.0 with layer norm (also XLSR's, data2vec's), channels last and in tiles.

    transformers keeps channels first: each layer norm then transposes twice, and every layer of a long call leaves the cache.

    Args:
        conv_layers: of the model's `feature_extractor`: convolution, layer norm and activation each.
    """

    def __init__(self, conv_layers: nn.ModuleList) -> None:
        super().__init__()
        layers: list[Any] = list(conv_layers)
        self.first = FirstLayer(layers[0].conv, layers[0].layer_norm)
        convs = [StridedConv(layer.conv) for layer in layers[1:]]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(layer.layer_norm for layer in layers[1:])
        self.activations = nn.ModuleList(layer.activation for layer in layers)
        # Samples from one frame to the next, and samples that a frame sees.
        self.hop, self.field = self.first.stride, self.first.kernel
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
            rows = self.activations[0](self.first(waveform[start * self.hop : (stop - 1) * self.hop + self.field]))
            for conv, norm, activation in zip(self.convs, self.norms, self.activations[1:], strict=True):
                rows = activation(norm(conv(rows)))
            tiles.append(rows)
        return torch.cat(tiles)
