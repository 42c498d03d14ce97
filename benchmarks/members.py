"""What K members cost in `predict`, against one of them, against a loop over them, and against what their arithmetic allows.

    python benchmarks/members.py [--pairs 15] [--rows 1024] [--members 5]

Random rows of 768 + 768 + 5 numbers through `predict_probabilities` on one thread, as `predict`'s classifying process has; it
takes 1,024 rows at a time. The loop is what members say one after another. Seconds are the process's own (CPU), each in turn
after one that does not count; medians, and medians of paired ratios. The limit is the members' floating-point operations at the
rate of a single matrix product of 1,536 columns: what no way of computing the members can go below.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from urgency_ray.config import ModelConfig, load_config
from urgency_ray.model import Batch, UrgencyClassifier, UrgencyEnsemble
from urgency_ray.model.inference import predict_probabilities
from urgency_ray.model.load import Model

WIDTH = 768


def make_member(config: ModelConfig, seed: int) -> UrgencyClassifier:
    """A classifier of random weights, that standardises by statistics of its own."""
    torch.manual_seed(seed)
    member = UrgencyClassifier(config, WIDTH, WIDTH).eval()
    for standardize in (member.standardize_audio, member.standardize_text):
        standardize.mean.copy_(0.1 * torch.randn(WIDTH))
        standardize.std.copy_(0.5 + torch.rand(WIDTH))
    return member


def join(members: Sequence[UrgencyClassifier]) -> UrgencyEnsemble:
    """An ensemble of even shares."""
    return UrgencyEnsemble.of(members, range(len(members)), [1 / len(members)] * len(members))


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def peak_gflops(rows: int) -> float:
    """GFLOP/s of one matrix product of `rows`, the best of some."""
    left, right = torch.randn(rows, 2 * WIDTH), torch.randn(2 * WIDTH, 512)
    return 2e-9 * rows * 2 * WIDTH * 512 / min(cpu_seconds(lambda: left @ right) for _ in range(9))


def member_gflop(member: UrgencyClassifier, rows: int) -> float:
    """GFLOPs of a forward pass."""
    batch = Batch(torch.randn(rows, WIDTH), torch.randn(rows, WIDTH), torch.randn(rows, 5))
    with FlopCounterMode(display=False) as counter:
        member(batch)
    return float(counter.get_total_flops()) / 1e9


def compare(name: str, members: Sequence[UrgencyClassifier], one: UrgencyClassifier, num_rows: int, pairs: int) -> None:
    """Print a row of the table: an ensemble of `members` beside `one` of them."""
    rng = np.random.default_rng(0)
    audio, text, acoustic = (rng.standard_normal((num_rows, dim), np.float32) for dim in (WIDTH, WIDTH, 5))

    def run(model: Model) -> Callable[[], Any]:
        return lambda: predict_probabilities(model, audio, text, acoustic)

    ways = {"one": run(one), "loop": lambda: [run(member)() for member in members], "merged": run(join(members))}
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(pairs + 1):
        for way, work in ways.items():
            took[way].append(cpu_seconds(work))
    rates = {way: num_rows / statistics.median(seconds[1:]) for way, seconds in took.items()}
    ratios = [
        statistics.median(a / b for a, b in zip(took[way][1:], took["one"][1:], strict=True)) for way in ("merged", "loop")
    ]
    limit = sum(member_gflop(member, num_rows) for member in members) / peak_gflops(num_rows)
    shown = " | ".join(f"{rate:,.0f}" for rate in rates.values())
    floor = limit / statistics.median(took["one"][1:])
    print(f"| {name} | {len(members)} | {num_rows} | {shown} | {ratios[0]:.2f} | {ratios[1]:.2f} | {floor:.2f} |")


def main() -> None:
    """Measure the heads of the shipped configs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 32, 1024])
    parser.add_argument("--members", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    best, recipe = (load_config(f"configs/{name}.yaml").model for name in ("best", "urgency_sense"))
    kinds = {
        "configs/best.yaml's concat": best,
        "linear": ModelConfig(name="linear"),
        "cross-attention, hidden 64": recipe.model_copy(update={"hidden_dim": 64, "num_layers": 1, "feedforward_dim": 128}),
        "concat, hidden 768": best.model_copy(update={"hidden_dim": WIDTH}),
        "configs/urgency_sense.yaml": recipe,
    }
    print("| head | members | rows | one, rows/s | loop | merged | merged / one | loop / one | limit by arithmetic / one |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, config in kinds.items():
        members = [make_member(config, seed) for seed in range(options.members)]
        pairs = 3 if config.hidden_dim == WIDTH and name != "linear" else options.pairs
        for num_rows in options.rows:
            compare(name, members, members[0], num_rows, pairs)
            if config is best:
                stacked = [make_member(ModelConfig(name="stacked"), seed) for seed in range(options.members)]
                others = [*stacked, *(make_member(kinds["linear"], seed) for seed in range(2 * options.members))]
                compare("all of configs/best.yaml", [*members, *others], members[0], num_rows, pairs)


if __name__ == "__main__":
    main()
