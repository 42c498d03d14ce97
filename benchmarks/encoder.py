"""The audio encoder of the recipe (data2vec-audio-base, random weights) against transformers' own and the machine's peak.

    python benchmarks/encoder.py [--pairs 5] [--device cpu|cuda] [--checkpoint FOLDER_OR_NAME] [--threads 1]

On ready tensors, no decoding: audio seconds per second of transformers' model and of ours, in float32, int8 and, where the
processor gains by it, bfloat16 on a CPU, in bfloat16 on a GPU; their share of the peak of products measured between them, in
bfloat16 for bfloat16, in float32 for the others; the least cosine of their embeddings to transformers'. All of them with the
memory settings of our workers (`encoders.cpu.keep_freed_memory`). FLOPs are those that torch.utils.flop_counter counts in
transformers' model, attention included. On a GPU it also prints how long the whole set of 3,064 hours would take; without one,
`--device cuda` says what it would run.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from corpus import SAMPLE_RATE_HZ, matmul_peak, median_ratio, save_encoders, timed
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from urgency_ray.encoders.arithmetic import best_arithmetic
from urgency_ray.encoders.cpu import keep_freed_memory, pack, quantise, use_front_end

SHAPES = ((4.0, 8), (8.0, 4), (8.0, 8), (16.0, 4), (30.0, 2), (65.0, 1))
GPU_SHAPES = ((8.0, 16), (8.0, 64), (8.0, 128), (16.0, 64), (65.0, 8))
WHOLE_SET_SEC = 3064 * 3600


def make_forward(model: Any, device: str) -> Callable[[torch.Tensor], Any]:
    """A call that is over when the device is."""

    @torch.inference_mode()
    def forward(inputs: torch.Tensor) -> Any:
        pooled = model(inputs.to(model.dtype)).last_hidden_state.float().mean(dim=1).cpu()
        if device == "cuda":
            torch.cuda.synchronize()
        return pooled

    return forward


def make_models(source: Any, device: str) -> dict[str, Any]:
    """Transformers' model and ours, by arithmetic."""
    if device == "cuda":
        return {"bfloat16": source.to("cuda", torch.bfloat16)}
    models = {"transformers": source, "float32": copy.deepcopy(source)}
    use_front_end(models["float32"])
    models["int8"] = copy.deepcopy(models["float32"])
    quantise(models["int8"])
    if best_arithmetic("cpu").dtype == "bfloat16":
        models["bfloat16"] = copy.deepcopy(source).bfloat16()
        use_front_end(models["bfloat16"])
        pack(models["bfloat16"])
    return models


def gpu_peak() -> float:
    """GFLOP/s of the best bfloat16 product."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def product() -> None:
        left @ right
        torch.cuda.synchronize()

    return 2 * 8192**3 / min(timed(product) for _ in range(10)) / 1e9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpoint", help="a checkpoint of your own; random weights otherwise")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="an encoder's actor on a small node has 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        shapes = ", ".join(f"{batch} x {seconds:g} s" for seconds, batch in GPU_SHAPES)
        print(f"no GPU here; on one, this would run data2vec-audio-base in bfloat16 on batches of {shapes}")
        return
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        source = AutoModel.from_pretrained(options.checkpoint or save_encoders(Path(folder))[0]).eval()
    models = make_models(source, options.device)
    ways = {name: make_forward(model, options.device) for name, model in models.items()}
    print(
        f"{'window':>8}{'batch':>6}{'GFLOP/s of audio':>18}"
        + "".join(f"{name + ' x real time':>26}{'of peak':>9}" for name in ways)
    )
    for seconds, batch in SHAPES if options.device == "cpu" else GPU_SHAPES:
        inputs = torch.randn(batch, round(seconds * SAMPLE_RATE_HZ)).to(options.device)
        audio_sec = seconds * batch
        # The counter does not know the CPU's fused attention: it counts the products of the plain one.
        source.set_attn_implementation("eager")
        with FlopCounterMode(display=False) as counter:
            make_forward(source, options.device)(inputs)
        source.set_attn_implementation("sdpa")
        gflop = counter.get_total_flops() / 1e9
        took: dict[str, list[float]] = {name: [] for name in ways}
        peaks: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way(inputs)
        for _ in range(options.pairs):
            for name, way in ways.items():
                dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
                peaks[name].append(matmul_peak(dtype=dtype) if options.device == "cpu" else gpu_peak())
                took[name].append(timed(functools.partial(way, inputs)))
        cells = [f"{seconds:>7g}s{batch:>6}{gflop / audio_sec:>18.1f}"]
        for name, values in took.items():
            share = statistics.median(gflop / value / peak for value, peak in zip(values, peaks[name], strict=True))
            cells.append(f"{audio_sec / statistics.median(values):>26.1f}{share:>9.2f}")
        print("".join(cells), flush=True)
        if options.device == "cpu":
            exact = ways["transformers"](inputs)
            for name in list(ways)[1:]:
                cosine = torch.nn.functional.cosine_similarity(exact, ways[name](inputs)).min()
                ratio = median_ratio(took["transformers"], took[name])
                print(f"{'':14}{name} / transformers {ratio:.2f}, least cosine {cosine:.5f}", flush=True)
        else:
            rate = audio_sec / statistics.median(took["bfloat16"])
            print(f"{'':14}the whole set of 3,064 hours: {WHOLE_SET_SEC / rate / 60:.1f} min")


if __name__ == "__main__":
    main()
