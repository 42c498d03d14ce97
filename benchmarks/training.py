"""The training loop against the recipe's own, against the machine, and what Ray adds.

    python benchmarks/training.py [--pairs 5] [--rows 1536] [--skip-ray]

UrgencySense's fusion model and losses over random embeddings of 768 numbers each, all cores. The recipe's loop: a DataLoader
of tuples with a WeightedRandomSampler, soft labels built row by row, AdamW as it comes, `loss.item()` each step, around the
model of torch.nn's own dropout and transformer layers. The same loop around our layers, and in a process that keeps the memory
it frees (`encoders.cpu.keep_freed_memory`), show where the difference comes from. Ours: `fit.epochs`.

Each has a process of its own, as it has in use: what one loop frees would change how glibc serves the other. Rows per second of
an epoch at batch 32, medians of paired runs, an epoch of each in turn after one that does not count (memory is taken in it);
the share of the matrix-product peak at batch 32 and 512 (FLOPs of forward and backward, counted by torch.utils.flop_counter);
the wall-clock of Ray Train around the same epochs, less theirs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from corpus import matmul_peak, median_ratio, timed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from torch.utils.flop_counter import FlopCounterMode

from urgency_ray.config import Config
from urgency_ray.encoders.cpu import keep_freed_memory
from urgency_ray.model.batch import Batch
from urgency_ray.model.layers import FewTokensLayer, SixteenBitDropout
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import build_model, epochs

WIDTH = 768
NUM_VAL = 64
RAY_EPOCHS = 5


def make_data(num_rows: int) -> TrainingData:
    """Random embeddings, of which the last `NUM_VAL` are the validation split."""
    rng = np.random.default_rng(0)
    audio, text = (rng.standard_normal((num_rows + NUM_VAL, WIDTH), np.float32) for _ in range(2))
    acoustic = rng.random((num_rows + NUM_VAL, 5), np.float32)
    urgency, sentiment = (rng.integers(0, 3, num_rows + NUM_VAL) for _ in range(2))
    rows = np.arange(num_rows + NUM_VAL)
    return TrainingData(audio, text, acoustic, urgency, sentiment, rows[:num_rows], rows[num_rows:])


class Rows(Dataset[tuple[Tensor, Tensor, Tensor, int]]):
    """The recipe's dataset: one tuple a row."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.train)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor, int]:
        arrays = (self.data.audio, self.data.text, self.data.acoustic)
        audio, text, acoustic = (torch.tensor(values[row], dtype=torch.float32) for values in arrays)
        return audio, text, acoustic, int(self.data.urgency[row])


def soft_labels(targets: Tensor, mass: float = 0.2) -> Tensor:
    """The recipe's ordinal soft labels, row by row."""
    rows = torch.zeros(len(targets), 3)
    for index, target in enumerate(targets):
        label = int(target.item())
        neighbours = [other for other in (label - 1, label + 1) if 0 <= other < 3]
        rows[index, label] = 1.0 - mass
        for other in neighbours:
            rows[index, other] = mass / len(neighbours)
    return rows


def of_torch_layers(model: nn.Module) -> nn.Module:
    """The same model, its weights too, out of torch.nn's own dropout and transformer layers."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, FewTokensLayer):
                attention, fed = child.self_attn, child.linear1.out_features
                layer = nn.TransformerEncoderLayer(
                    attention.embed_dim, attention.num_heads, fed, child.dropout.p, activation="gelu", batch_first=True
                )
                layer.load_state_dict(child.state_dict())
                setattr(module, name, layer)
            elif isinstance(child, SixteenBitDropout):
                setattr(module, name, nn.Dropout(child.p))
    return model


class RecipeLoop:
    """UrgencySense's train_one_epoch."""

    def __init__(self, model: nn.Module, data: TrainingData, batch_size: int) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-5, weight_decay=0.01)
        counts = np.bincount(data.urgency[data.train], minlength=3)
        self.weights = torch.tensor(len(data.train) / (3 * counts), dtype=torch.float32)
        row_weights = (self.weights**0.5)[data.urgency[data.train]]
        sampler = WeightedRandomSampler(row_weights.tolist(), len(data.train), replacement=True)
        self.loader = DataLoader(Rows(data), batch_size=batch_size, sampler=sampler)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """One of the three losses, at random."""
        draw = random.random()
        if draw < 0.25:
            log_probs = torch.nn.functional.log_softmax(logits, dim=-1)
            return torch.nn.functional.kl_div(log_probs, soft_labels(targets), reduction="batchmean")
        if draw < 0.65:
            entropy = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            focal = self.weights[targets] * (1 - torch.exp(-entropy)) ** 2 * entropy
            return (focal * (1 + (targets - logits.argmax(-1)).abs())).mean()
        return torch.nn.functional.cross_entropy(logits, targets, weight=self.weights)

    def epoch(self) -> float:
        """Train over all rows once."""
        self.model.train()
        total = 0.0
        for audio, text, acoustic, targets in self.loader:
            self.optimizer.zero_grad()
            loss = self.loss(self.model(Batch(audio, text, acoustic))["urgency"], targets)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            total += loss.item()
        return total / len(self.loader)


def fit_seconds(config: Config, data: TrainingData) -> Iterator[float]:
    """Seconds of each epoch of `fit.epochs`."""
    return (float(epoch.metrics["seconds"]) for epoch in epochs(config, data))


def recipe_seconds(config: Config, data: TrainingData, adapt: Callable[[nn.Module], nn.Module]) -> Iterator[float]:
    """Seconds of each epoch of the recipe's loop, around what `adapt` makes of our model."""
    loop = RecipeLoop(adapt(build_model(config, data)), data, config.train.batch_size)
    while True:
        yield timed(loop.epoch)


def recipe_keeping_memory(config: Config, data: TrainingData) -> Iterator[float]:
    """The recipe's loop, in a process with our encoder workers' memory settings."""
    keep_freed_memory()
    return recipe_seconds(config, data, of_torch_layers)


LOOPS: dict[str, Callable[[Config, TrainingData], Iterator[float]]] = {
    "recipe": lambda config, data: recipe_seconds(config, data, of_torch_layers),
    "recipe, our layers": lambda config, data: recipe_seconds(config, data, lambda model: model),
    "recipe, memory kept": recipe_keeping_memory,
    "fit": fit_seconds,
    "fit, batch 512": lambda config, data: fit_seconds(config.replace({"train.batch_size": 512}), data),
}


class Loop:
    """One of `LOOPS` in a process of its own, which stands still between two epochs."""

    _seconds: Iterator[float]

    def __init__(self, name: str, config: Config, num_rows: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, spawn, initializer=self._begin, initargs=(name, config.model_dump(), num_rows))

    @classmethod
    def _begin(cls, name: str, settings: dict[str, Any], num_rows: int) -> None:
        cls._seconds = LOOPS[name](Config.model_validate(settings), make_data(num_rows))

    @classmethod
    def _next(cls) -> float:
        return next(cls._seconds)

    def epoch(self) -> float:
        """Seconds of its next epoch."""
        return self._process.submit(self._next).result()


def step_gflop(config: Config, data: TrainingData, batch_size: int) -> float:
    """GFLOPs of forward and backward over a batch."""
    model = build_model(config, data).train()
    inputs, targets = data.batch(data.train[:batch_size], torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        loss = torch.nn.functional.cross_entropy(model(inputs)["urgency"], targets["urgency"])
        loss.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / 1e9


def ray_overhead(config: Config, data: TrainingData) -> None:
    """Ray Train's start-up, and what it adds to an epoch, on a small model whose epochs are short."""
    from urgency_ray import cluster
    from urgency_ray.fingerprint import Transform
    from urgency_ray.training.shared import SharedInputs
    from urgency_ray.training.trainer import Job, train_models

    small = {"model.hidden_dim": 64, "model.num_layers": 1, "model.feedforward_dim": 128, "model.head_dim": 64}
    short, long = (config.replace({**small, "train.epochs": number}) for number in (1, 1 + RAY_EPOCHS))
    cluster.connect(config.ray)
    shared, transform = SharedInputs(config.ray).share(data), Transform.of(config, None)
    took: dict[str, list[float]] = {"short": [], "long": [], "bare": []}
    for _ in range(3):
        for name, wanted in (("short", short), ("long", long)):
            with tempfile.TemporaryDirectory() as folder:
                jobs = [Job(name, wanted, data, shared)]
                took[name].append(timed(lambda j=jobs, f=folder: train_models(j, f, transform)))  # type: ignore[misc]
        took["bare"].append(timed(lambda: list(fit_seconds(long, data))))
    start = statistics.median(took["short"])
    epoch = statistics.median((b - a) / RAY_EPOCHS for a, b in zip(took["short"], took["long"], strict=True))
    bare = statistics.median(took["bare"]) / (1 + RAY_EPOCHS)
    print(f"Ray Train: {start:.1f} s for a run of one epoch; {epoch:.2f} s an epoch more, of which the loop {bare:.2f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1536)
    parser.add_argument("--skip-ray", action="store_true")
    options = parser.parse_args()
    data = make_data(options.rows)
    config = Config().replace({"train.early_stop_epochs": None, "train.epochs": 1 + options.pairs})
    gflop = step_gflop(config, data, config.train.batch_size) / config.train.batch_size
    loops = {name: Loop(name, config, options.rows) for name in LOOPS}
    took: dict[str, list[float]] = {name: [] for name in loops}
    shares: dict[str, list[float]] = {name: [] for name in loops if name.startswith("fit")}
    for pair in range(options.pairs + 1):
        peak = matmul_peak()
        seconds = {name: loop.epoch() for name, loop in loops.items()}
        if not pair:
            continue  # the first round warms up
        for name, value in seconds.items():
            took[name].append(value)
        for name, values in shares.items():
            values.append(gflop * options.rows / seconds[name] / peak)
        print("  ".join(f"{name} {options.rows / value:.0f}" for name, value in seconds.items()), "rows/s", flush=True)
    for name, values in took.items():
        print(f"{name:<20}{options.rows / statistics.median(values):8.0f} rows per second")
    for name in loops:
        if name.startswith("recipe"):
            print(f"fit / {name}: {median_ratio(took[name], took['fit']):.2f}")
    print(f"{gflop:.3f} GFLOP a row, forward and backward")
    for name, values in shares.items():
        print(f"share of the matrix-product peak, {name}: {statistics.median(values):.2f}")
    if not options.skip_ray:
        ray_overhead(config, data)


if __name__ == "__main__":
    main()
