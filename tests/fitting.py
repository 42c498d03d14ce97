"""Runs of `fit`, in this process and on data-parallel workers, with the weights after each epoch."""

import contextlib
import functools
import os
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from urgency_ray.config import Config
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import fit

SMALL = {
    "model.hidden_dim": 16,
    "model.num_heads": 2,
    "model.num_layers": 1,
    "model.feedforward_dim": 16,
    "model.head_dim": 16,
    "train.learning_rate": 3e-3,
    "train.epochs": 3,
}
NO_DROPOUT = {"model.dropout": 0.0, "model.encoder_dropout": 0.0}


def run(config: Config, data: TrainingData, resume: Any = None, stop_after: Any = None) -> Any:
    """(Epoch, weights) of each epoch; `stop_after` so many as if the process had died then."""
    epochs = []

    def report(epoch: Any) -> None:
        epochs.append((epoch, {k: v.clone() for k, v in epoch.state()["model"].items()}))
        if len(epochs) == stop_after:
            raise InterruptedError

    with contextlib.suppress(InterruptedError):
        fit(config, data, report, resume=resume)
    return epochs


def describe(epochs: Any) -> Any:
    """What all workers must agree on: the last weights, and each epoch's metrics and decisions, without its seconds."""
    rows = [{k: v for k, v in epoch.metrics.items() if k != "seconds"} for epoch, _ in epochs]
    decisions = [{"improved": epoch.improved, "last": epoch.last} for epoch, _ in epochs]
    return epochs[-1][1], [row | decision for row, decision in zip(rows, decisions, strict=True)]


def _serve(orders: Any) -> None:
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError):
        while True:
            rank, num_workers, folder, config, data = orders.recv()
            try:
                dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=num_workers)
                torch.save(describe(run(config, data)), f"{folder}/rank{rank}.pt")
                dist.barrier()
                dist.destroy_process_group()
                orders.send(None)
            except Exception:
                orders.send(traceback.format_exc())
    # Not through the interpreter's end: gloo's threads may still run when C++ tears down what they use, which aborts.
    os._exit(0)


@functools.cache
def _workers(num_workers: int) -> Any:
    """Processes that stay for the next run, and the driver's ends of their pipes: to start them is to import PyTorch."""
    context = mp.get_context("spawn")
    pipes = [context.Pipe() for _ in range(num_workers)]
    processes = [context.Process(target=_serve, args=(theirs,), daemon=True) for _, theirs in pipes]
    for process, (_, theirs) in zip(processes, pipes, strict=True):
        process.start()
        theirs.close()
    return processes, [ours for ours, _ in pipes]


def run_on_workers(config: Config, data: TrainingData, num_workers: int, folder: Path) -> Any:
    """`describe` of a run on so many workers, as each rank saw it."""
    processes, pipes = _workers(num_workers)
    try:
        for rank, pipe in enumerate(pipes):
            pipe.send((rank, num_workers, str(folder), config, data))
        waiting = list(pipes)
        while waiting:
            for pipe in wait(waiting):
                assert isinstance(pipe, Connection)
                waiting.remove(pipe)
                if error := pipe.recv():
                    raise RuntimeError(error)
    except BaseException:
        # The others may wait for the one that failed, for ever.
        for process in processes:
            process.kill()
        _workers.cache_clear()
        raise
    return [torch.load(f"{folder}/rank{rank}.pt", weights_only=True) for rank in range(num_workers)]


def check_two_workers_are_one(
    config: Config, data: TrainingData, folder: Path, noise: Any = lambda name, value: slice(0)
) -> Any:
    """Two workers at the config's batch size against one at twice that, to 1e-5: losses, scores, decisions, last weights.

    `noise` says which part of a weight is not compared, because its gradient is zero but for rounding, which Adam scales up.
    """
    doubled = config.replace({"train.batch_size": 2 * config.train.batch_size})
    weights, rows = describe(run(doubled, data))
    ranks = run_on_workers(config, data, 2, folder)
    for found, others in ranks:
        assert found.keys() == weights.keys()
        for name, value in weights.items():
            left_out = noise(name, value)
            value[left_out] = found[name][left_out]
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=functools.partial("{}: {}".format, name))
        assert len(others) == len(rows)
        for other, row in zip(others, rows, strict=True):
            assert other == pytest.approx(row, abs=1e-5)
    # Not only near: what is gathered over workers is the very same on each, or they could decide apart.
    assert ranks[0][1] == ranks[1][1]
    return rows


def rounding_noise(name: Any, value: Any) -> Any:
    """Of attention's input projection, the part that has no gradient."""
    third = len(value) // 3
    if name.startswith("trunk.attention.in_proj"):
        return slice(2 * third)  # query and key: the softmax over one key is 1
    if name.endswith("self_attn.in_proj_bias"):
        return slice(third, 2 * third)  # the keys' bias cancels in the softmax
    return slice(0)
