"""The training loop, for one worker or many: Ray Train workers and Ray Tune trials call it. It knows torch.distributed, no Ray.

What is drawn at random (order of rows, loss of a step) is a function of (seed, epoch, step), never of the number of workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import NUM_CLASSES, class_counts
from urgency_ray.fingerprint import Transform
from urgency_ray.model.batch import Batch, inference_batches
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.text_trunk import KoElectraCrossModal, load_initial_weights, load_tokenizer
from urgency_ray.schema import SENTIMENT_LABELS
from urgency_ray.scoring.metrics import macro_f1_from_confusion
from urgency_ray.training.data import TrainingData, column_statistics, epoch_order, worker_batches
from urgency_ray.training.loss import UrgencyLoss

State = dict[str, Any]
"""The content of a checkpoint (`Epoch.state`): plain values and tensors, all that `torch.load` takes with `weights_only`."""
Row = dict[str, Any]
"""The keys of a `history.EpochRow`, as Ray and checkpoints carry them."""

BFLOAT16_WIDTH = 256
"""Least hidden_dim from which bfloat16 pays on a CPU with AMX: 1.3 times the rows at 768 and batch 32, three quarters at 64."""
BFLOAT16_GPU = (8, 0)
"""Compute capability from which GPUs have bfloat16; older ones emulate it."""


@dataclass(frozen=True)
class Epoch:
    """What `fit` hands to its caller after each epoch, on every rank.

    Attributes:
        metrics: a row of history.json, plus `best_val_macro_f1`, that of the best epoch so far.
        improved: whether this epoch is the best so far.
        last: whether training ends here.
        state: makes the checkpoint's content: model, optimizer, scheduler, history (which counts the epochs), best, best epoch
            and the model's state then, ended. No random state is in it: each epoch seeds its own from (seed, epoch), dropout's
            from the rank, too.
    """

    metrics: Row
    improved: bool
    last: bool
    state: Callable[[], State]


@dataclass(frozen=True)
class Worker:
    """Where this process stands among the data-parallel workers, and the device it trains on."""

    rank: int
    world_size: int
    device: torch.device

    @classmethod
    def current(cls, device: torch.device) -> Worker:
        """The place in torch.distributed's group, or a worker on its own."""
        if dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device)
        return cls(0, 1, device)


def build_model(config: Config, data: TrainingData, transform: Transform | None = None) -> UrgencyClassifier:
    """A fresh classifier for `data`, its weights a function of the seed, its statistics those of the training rows.

    A text encoder that is part of it starts from its checkpoint.

    Args:
        config: its model, loss and train sections; its encoder sections say how many layers lie side by side in a row.
        data: embeddings, which give the widths and the statistics.
        transform: what made the embeddings, to be saved with the model.
    """
    finetunes = config.model.text_encoder is not None and config.model.modalities != "audio"
    architecture, weights = load_initial_weights(config.model) if finetunes else (None, {})
    torch.manual_seed(config.train.seed)
    with_sentiment = config.loss.sentiment_weight > 0
    widths = data.audio.shape[1], data.text.shape[1]
    kept = None if transform is None else transform.model_dump()
    layers = {"audio": config.audio_encoder.layers, "text": config.text_encoder.layers}
    num_layers = {name: len(numbers) if isinstance(numbers, list) else 1 for name, numbers in layers.items()}
    options: dict[str, Any] = {"architecture": architecture, "num_layers": num_layers}
    model = UrgencyClassifier(config.model, *widths, with_sentiment, kept, **options)
    if isinstance(model.trunk, KoElectraCrossModal) and finetunes:
        model.trunk.text_encoder.load_state_dict(weights)
        model.tokenizer = load_tokenizer(config.model)
    rows = data.rows(data.train)
    model.standardize_acoustic.set_statistics(*column_statistics(data.acoustic, rows))
    if config.model.standardizes:
        model.standardize_audio.set_statistics(*column_statistics(data.audio, rows))
        model.standardize_text.set_statistics(*column_statistics(data.text, rows))
    return model


def _build_schedule(config: Config, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    schedulers = torch.optim.lr_scheduler
    train = config.train
    if train.schedule == "cosine_warm_restarts":
        return schedulers.CosineAnnealingWarmRestarts(
            optimizer, train.restart_epochs, train.restart_factor, train.min_learning_rate
        )
    if train.schedule == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, train.epochs, train.min_learning_rate)
    return schedulers.ConstantLR(optimizer, factor=1.0)


def _build_learner(
    config: Config, data: TrainingData, device: torch.device
) -> tuple[UrgencyClassifier, UrgencyLoss, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Model, loss, optimizer and schedule at their beginning."""
    model = build_model(config, data).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.train.learning_rate, weight_decay=config.train.weight_decay, fused=True)
    schedule = _build_schedule(config, optimizer)
    counts = class_counts(data.urgency[data.train], NUM_CLASSES)
    loss_fn = UrgencyLoss(config.loss, counts, class_counts(data.sentiment[data.train], len(SENTIMENT_LABELS)))
    return model, loss_fn.to(device), optimizer, schedule


def fit(
    config: Config,
    data: TrainingData,
    report: Callable[[Epoch], None],
    *,
    device: torch.device | None = None,
    resume: State | None = None,
    alone: bool = False,
) -> None:
    """Train as `epochs` does; call `report` after each epoch, on every rank."""
    for epoch in epochs(config, data, device=device, resume=resume, alone=alone):
        report(epoch)


def epochs(
    config: Config,
    data: TrainingData,
    *,
    device: torch.device | None = None,
    resume: State | None = None,
    alone: bool = False,
) -> Iterator[Epoch]:
    """Train until the last epoch or the early stop, an epoch at each step of the iterator, on every rank.

    All random draws of an epoch are a function of its number: what runs between two steps does not change them. It is one long
    function because its local state, no more and no less, is what a checkpoint holds and a resumed run starts from.

    Args:
        config: its model, loss, sampler and train sections.
        data: shared embeddings.
        device: where to train; None is the CPU.
        resume: a checkpoint's content, to go on after its epoch.
        alone: train as one worker does, whatever group this process is of.

    Raises:
        FloatingPointError: the loss is not finite.
        RequestError: the text encoder cannot be loaded, or the best epoch cannot be picked as wished.
    """
    if config.train.select_by == "mean_of_tasks" and not (data.sentiment[data.val] >= 0).any():
        raise RequestError("train.select_by: mean_of_tasks, but no row of the val split has a sentiment; set urgency_macro_f1")
    device = device or torch.device("cpu")
    worker = Worker(0, 1, device) if alone else Worker.current(device)
    if config.model.is_fitted:
        yield from _fitted_epoch(config, data, worker, resume)
        return
    model, loss_fn, optimizer, schedule = _build_learner(config, data, worker.device)
    history: list[Row] = []
    best, best_epoch = -1.0, 0
    best_model: State = {}
    if resume is not None:
        model.load_state_dict(resume["model"])
        optimizer.load_state_dict(resume["optimizer"])
        schedule.load_state_dict(resume["schedule"])
        history, best, best_epoch, best_model = (resume[name] for name in ("history", "best", "best_epoch", "best_model"))
        if resume["ended"]:
            return
    wrapped = nn.parallel.DistributedDataParallel(model) if worker.world_size > 1 else model

    for epoch in range(len(history) + 1, config.train.epochs + 1):
        started = time.monotonic()
        # Dropout masks are a function of (seed, epoch, rank), so a resumed run draws the same ones.
        torch.manual_seed(int(np.random.SeedSequence([config.train.seed, epoch, worker.rank]).generate_state(1)[0]))
        learning_rate = optimizer.param_groups[0]["lr"]
        train_loss = _train_epoch(config, data, wrapped, loss_fn, optimizer, epoch=epoch, worker=worker)
        val_loss, confusions = _validate(config, data, model, worker)
        schedule.step()
        scores = _val_scores(config, confusions, val_loss)
        improved = scores["val_score"] > best
        if not np.isfinite(val_loss):
            raise FloatingPointError(f"epoch {epoch}: the validation loss is {val_loss}; try a lower train.learning_rate")
        if improved:
            best, best_epoch = scores["val_score"], epoch
            best_model = {name: value.detach().clone() for name, value in model.state_dict().items()}
        last = epoch == config.train.epochs or epoch - best_epoch >= (config.train.early_stop_epochs or config.train.epochs)
        row = {
            "modalities": config.model.modalities,
            "epoch": epoch,
            "train_loss": train_loss,
            "val_loss": val_loss,
            **scores,
            "learning_rate": learning_rate,
            "seconds": round(time.monotonic() - started, 4),
        }
        history = [*history, row]

        kept = {"history": history, "best": best, "best_epoch": best_epoch, "best_model": best_model, "ended": last}

        def state(kept: State = kept) -> State:
            live: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
            return {name: part.state_dict() for name, part in live.items()} | kept

        yield Epoch(row | {"best_val_macro_f1": history[best_epoch - 1]["val_macro_f1"]}, improved, last, state)
        if last:
            return


def _fitted_epoch(config: Config, data: TrainingData, worker: Worker, resume: State | None) -> Iterator[Epoch]:
    """The fit of a linear or stacked model as an epoch, the same on every rank."""
    # An import of a second that no other model needs.
    from urgency_ray.training.discriminant import fit_discriminant
    from urgency_ray.training.linear import fit_linear
    from urgency_ray.training.stacked import fit_stacked

    if resume is not None and resume["ended"]:
        return
    started = time.monotonic()
    model = build_model(config, data)
    balanced = config.loss.class_weights == "balanced"
    if config.model.name == "linear":
        fitted = fit_linear(model, data, data.train, c=config.train.linear_c, balanced=balanced, seed=config.train.seed)
        train_loss = fitted.loss
    else:
        fit_it = fit_stacked if config.model.name == "stacked" else fit_discriminant
        shrinkage, seed = config.train.shrinkage, config.train.seed
        train_loss = fit_it(model, data, data.train, shrinkage=shrinkage, balanced=balanced, seed=seed)
    val_loss, confusions = _validate(config, data, model.to(worker.device), worker)
    scores = _val_scores(config, confusions, val_loss)
    row = {
        "modalities": config.model.modalities,
        "epoch": 1,
        "train_loss": train_loss,
        "val_loss": val_loss,
        **scores,
        "learning_rate": 0.0,
        "seconds": round(time.monotonic() - started, 4),
    }
    kept = {"history": [row], "best": scores["val_score"], "best_epoch": 1, "best_model": model.state_dict(), "ended": True}
    state = {"model": model.state_dict(), "optimizer": {}, "schedule": {}} | kept
    yield Epoch(row | {"best_val_macro_f1": scores["val_macro_f1"]}, True, True, lambda: state)


def _train_epoch(
    config: Config,
    data: TrainingData,
    model: nn.Module,
    loss_fn: UrgencyLoss,
    optimizer: torch.optim.Optimizer,
    *,
    epoch: int,
    worker: Worker,
) -> float:
    model.train()
    order = data.train[epoch_order(data.urgency[data.train], config.sampler, config.train.seed, epoch)]
    draws = np.random.default_rng([config.train.seed, epoch, 1])
    total, num_steps = torch.zeros((), device=worker.device), 0
    for rows in worker_batches(order, config.train.batch_size, worker.rank, worker.world_size):
        inputs, targets = data.batch(rows, worker.device)
        terms = loss_fn.terms(_forward(config, model, inputs), targets, draws.random())
        normalisers = terms.normalisers
        if worker.world_size > 1:
            dist.all_reduce(normalisers)
        # DDP averages gradients over workers; numerators are sums, so the average is undone.
        loss = terms.total(normalisers) * worker.world_size
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if config.train.clip_norm is not None:
            _clip_in_step(optimizer, config.train.clip_norm)
        optimizer.step()
        total += loss.detach()
        num_steps += 1
    if worker.world_size > 1:
        dist.all_reduce(total)
    mean = float(total) / (num_steps * worker.world_size)
    if not np.isfinite(mean):
        raise FloatingPointError(f"epoch {epoch}: the training loss is {mean}; try a lower train.learning_rate")
    return mean


def _clip_in_step(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """`nn.utils.clip_grad_norm_` as part of a fused optimizer's own pass over the gradients: one pass less over memory."""
    grads = [weight.grad.flatten() for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
    norm = torch.stack([torch.dot(grad, grad) for grad in grads]).sum().sqrt()
    # What a gradient scaler would set: the step divides the gradients by it.
    optimizer.grad_scale = ((norm + 1e-6) / max_norm).clamp(min=1.0)  # type: ignore[attr-defined]


def _gains_by_bfloat16(config: Config, device: str) -> bool:
    """Whether a step is faster in bfloat16; without the instructions for it, it would be up to a hundred times slower.

    Casting costs what products gain by it where they are small: at hidden_dim 64 a step takes longer, with AMX, too.
    """
    has_encoder = config.model.text_encoder is not None
    if device == "cpu":
        is_large = config.model.hidden_dim >= BFLOAT16_WIDTH and not config.model.is_fitted and not has_encoder
        return is_large and bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return has_encoder and torch.cuda.get_device_capability() >= BFLOAT16_GPU


def _forward(config: Config, model: nn.Module, inputs: Batch) -> dict[str, Tensor]:
    """Float32 logits of a forward pass in the precision that the config asks for."""
    device = inputs.audio.device.type
    auto = config.train.precision == "auto" and _gains_by_bfloat16(config, device)
    with torch.autocast(device, torch.bfloat16, enabled=auto or config.train.precision == "bfloat16"):
        logits = model(inputs)
    return {task: values.float() for task, values in logits.items()}


@torch.inference_mode()
def _validate(
    config: Config, data: TrainingData, model: nn.Module, worker: Worker
) -> tuple[float, dict[str, NDArray[np.int64]]]:
    """Over all workers: urgency's mean negative log-likelihood, which compares runs of any loss; each task's confusions."""
    model.eval()
    sizes = {"urgency": NUM_CLASSES, "sentiment": len(SENTIMENT_LABELS)}
    loss = torch.zeros((), dtype=torch.float64, device=worker.device)
    tasks = sizes if config.loss.sentiment_weight > 0 else ["urgency"]
    confusions = {task: torch.zeros(sizes[task] ** 2, dtype=torch.int64, device=worker.device) for task in tasks}
    for examples in inference_batches(data.val[worker.rank :: worker.world_size], data.utterances, data.tokens):
        inputs, targets = data.batch(examples, worker.device)
        logits = _forward(config, model, inputs)
        loss += nn.functional.cross_entropy(logits["urgency"], targets["urgency"], reduction="sum")
        for task, values in logits.items():
            size, known = sizes[task], targets[task] >= 0
            cells = (targets[task] * size + values.argmax(dim=-1))[known]
            confusions[task] += torch.bincount(cells, minlength=size**2)
    if worker.world_size > 1:
        for total in (loss, *confusions.values()):
            dist.all_reduce(total)
    return float(loss) / len(data.val), {
        task: counts.view(sizes[task], -1).cpu().numpy() for task, counts in confusions.items()
    }


def _val_scores(config: Config, confusions: dict[str, NDArray[np.int64]], val_loss: float) -> dict[str, float]:
    """Macro-F1 and accuracy of each task that has rows, by their names in history.json, and what picks the best epoch."""
    scores = {}
    for task, prefix in (("urgency", "val_"), ("sentiment", "val_sentiment_")):
        if task in confusions and (confusion := confusions[task]).sum():
            scores[f"{prefix}macro_f1"] = float(macro_f1_from_confusion(confusion))
            scores[f"{prefix}accuracy"] = float(np.trace(confusion) / confusion.sum())
    by_task = [value for name, value in scores.items() if name.endswith("macro_f1")]
    # exp(-loss), the geometric mean of the labels' probabilities: between 0 and 1, and the higher the better, as the others.
    picks = {
        "urgency_macro_f1": scores["val_macro_f1"],
        "mean_of_tasks": float(np.mean(by_task)),
        "urgency_likelihood": float(np.exp(-val_loss)),
    }
    return scores | {"val_score": picks[config.train.select_by]}
