"""What each part of the answer is worth: macro-F1 on rows that no fit has seen, against simple baselines.

    python benchmarks/answers.py [--sets ../shared/data/embedding_sets] [--calls 300 3000] [--seeds 3] [--parts linear best]

Sets of embeddings that `urgency-ray import` reads (below `--sets`, a folder with metadata.csv and embeddings.npz each), and
corpora that are synthesised and extracted here. Test rows are not touched: train and val are cut into five folds, by call, and
each row is called by what was trained on the other four, an ensemble with folds of its own inside them. In this process, on
one thread, without Ray but for the corpora.

Printed for each part: mean macro-F1 and log loss over seeds by set; over all sets, the mean difference to the linear model,
with a 95 % interval from the same resamples of calls for both. Below it, what of each corpus's calls could be told by who knows
their cues: no model comes beyond that but by chance.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss

from urgency_ray.commands.extract import extract
from urgency_ray.commands.interchange import import_artefacts
from urgency_ray.config import Config, load_config
from urgency_ray.examples.dataset import NUM_CLASSES, Examples, Splits, class_counts
from urgency_ray.examples.groups import group_examples
from urgency_ray.examples.splits import fold_splits, val_folds
from urgency_ray.model.inference import predict_examples
from urgency_ray.synthesize.corpus import CORPUS_FILE, Corpus, synthesize
from urgency_ray.synthesize.cues import CLASS_SHARES, VOICE_RELIABILITY, WORDS_RELIABILITY
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import build_model, epochs
from urgency_ray.training.history import EpochRow
from urgency_ray.training.members import join_members, member_jobs
from urgency_ray.training.run import open_run
from urgency_ray.training.shared import SharedData
from urgency_ray.training.trainer import Trained, calibrate

ROOT = Path(__file__).parents[1]
BASELINE = "linear"
FITTED = ("linear", "discriminant", "stacked")
SINGLE: dict[str, Any] = {"train.members": None} | {f"train.{name}_member": False for name in FITTED}
MEMBERS = SINGLE | {"train.members": 5}
RECIPE: dict[str, Any] = {
    "model.name": "cross_attention",
    "model.hidden_dim": 64,
    "model.num_layers": 1,
    "model.num_heads": 4,
    "model.feedforward_dim": 128,
    "model.head_dim": 64,
    "loss.kl_weight": 0.25,
    "loss.focal_weight": 0.4,
    "loss.cross_entropy_weight": 0.35,
    "train.weight_decay": 0.01,
    "train.schedule": "cosine_warm_restarts",
    "train.select_by": "urgency_macro_f1",
}
"""UrgencySense's model and losses, of a size for some hundred calls."""
PARTS: dict[str, dict[str, Any]] = {
    "linear": SINGLE | {"model.name": "linear"},
    "linear, audio": SINGLE | {"model.name": "linear", "model.modalities": "audio"},
    "linear, text": SINGLE | {"model.name": "linear", "model.modalities": "text"},
    "discriminant": SINGLE | {"model.name": "discriminant"},
    "stacked": SINGLE | {"model.name": "stacked"},
    "recipe, small": SINGLE | RECIPE,
    "recipe, 5 members": MEMBERS | RECIPE,
    "recipe + linear": MEMBERS | RECIPE | {"train.linear_member": True},
    "concat, 5 members": MEMBERS,
    "concat + linear": MEMBERS | {"train.linear_member": True},
    "best but stacked": {"train.stacked_member": False},
    "best": {},
}
"""What is changed in configs/best.yaml for each part."""


@dataclass(frozen=True)
class Rows:
    """A set of embeddings: its examples, and the numbers of those to train and validate on."""

    examples: Examples
    both: NDArray[np.int64]


def read_sets(folder: Path, work: Path) -> dict[str, str]:
    """Run folders of the embedding sets below a folder, by name."""
    if not folder.is_dir():
        print(f"{folder}: not there, left out")
        return {}
    found = {}
    for place in sorted(path.parent for path in folder.glob("*/metadata.csv")):
        found[place.name] = str(work / place.name)
        import_artefacts(Config(), str(place / "metadata.csv"), str(place / "embeddings.npz"), found[place.name])
    return found


def make_corpus(num_calls: int, work: Path) -> str:
    """The run folder of a synthesised corpus of short calls."""
    root, run_dir = work / f"calls-{num_calls}", str(work / f"run-{num_calls}")
    lengths = {"synthesize.min_call_sec": 4.0, "synthesize.max_call_sec": 6.0, "synthesize.flaw_fraction": 0.0}
    config = load_config(ROOT / "configs" / "demo.yaml").replace(
        {"data.root": str(root), "synthesize.num_calls": num_calls, **lengths}
    )
    synthesize(str(root), config.synthesize)
    extract(config, run_dir)
    return run_dir


def known(rows: Rows, root: Path) -> NDArray[np.float64]:
    """P(urgency class) of each row of train and val by who knows both cues of a corpus's call, (N, C)."""
    cues = Corpus.model_validate_json((root / CORPUS_FILE).read_bytes()).cues
    words, voice = np.array([cues[call] for call in rows.examples.keys["call_id"].iloc[rows.both]]).T
    joint = CLASS_SHARES * WORDS_RELIABILITY[:, words].T * VOICE_RELIABILITY[:, voice].T
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))


def train_here(config: Config, examples: Examples, folds: Sequence[Splits]) -> list[Trained]:
    """What `trainer.train_models` makes of the models of an ensemble, or of one, in this process."""
    data = [TrainingData.from_examples(examples, fold) for fold in folds]
    trained = []
    for job in member_jobs("model", config, [(part, SharedData({}, None, "")) for part in data]):
        *_, last = epochs(job.config, job.data)
        state = last.state()
        model = build_model(job.config, job.data)
        model.load_state_dict(state["best_model"])
        calibrate(job.data, model)
        trained.append(Trained(model.eval(), [EpochRow.model_validate(row) for row in state["history"]]))
    return trained


def answer(config: Config, examples: Examples, splits: Splits) -> NDArray[np.float32]:
    """P(urgency class) of the test rows of `splits`, (N, C)."""
    if config.train.members is None:
        (one,) = train_here(config, examples, [splits])
        if config.model.is_fitted:  # it was fitted to val, which can say nothing of its temperature
            one.model.temperature.fill_(1.0)
        return predict_examples(one.model, examples, splits.test)["urgency"]
    folds = val_folds(examples, splits, config.split, config.train.members, "train.members")
    return predict_examples(join_members(train_here(config, examples, folds), examples, folds), examples, splits.test)[
        "urgency"
    ]


def cross_answer(part: str, rows: Rows, seed: int) -> NDArray[np.float32]:
    """P(urgency class) of each row of train and val by what has not seen it, (N, C), in the order of `rows.both`."""
    seeds = {"train.seed": seed, "split.seed": seed}
    config = load_config(ROOT / "configs" / "best.yaml").replace(PARTS[part] | seeds)
    told = np.zeros((len(rows.examples), NUM_CLASSES), np.float32)
    for fold in fold_splits(rows.examples, config.split, 5):
        # What is fitted at once has no use for val: it takes all rows but those held out.
        both = np.sort(np.concatenate([fold.train, fold.val]))
        told[fold.test] = answer(config, rows.examples, replace(fold, train=both) if config.model.is_fitted else fold)
    return told[rows.both]


def majority(rows: Rows) -> NDArray[np.float32]:
    """The share of each class, for each row of train and val, (N, C)."""
    counts = class_counts(rows.examples.urgency[rows.both], NUM_CLASSES)
    return np.tile((counts / counts.sum()).astype(np.float32), (len(rows.both), 1))


def resampled_macro_f1(truth: NDArray[np.int64], called: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Macro-F1 under each of M resamples, (M,); `counts` says how often each row is in it, (M, N)."""
    right = np.stack([counts[:, (truth == label) & (called == label)].sum(axis=1) for label in range(NUM_CLASSES)])
    either = np.stack(
        [counts[:, truth == label].sum(axis=1) + counts[:, called == label].sum(axis=1) for label in range(NUM_CLASSES)]
    )
    return np.asarray((2 * right / np.maximum(either, 1)).mean(axis=0))


def print_table(told: Mapping[str, Mapping[str, Sequence[NDArray[np.float32]]]], sets: Mapping[str, Rows]) -> None:
    """Lines of parts: figures by set, then the difference to the baseline."""
    names = list(sets)
    print(f"\n{'macro-F1 (log loss)':<20}" + "".join(f"{name:>16}" for name in names) + f"{'against linear':>30}")
    draws: dict[str, NDArray[np.int64]] = {}
    for name, rows in sets.items():
        _, calls = np.unique(group_examples(rows.examples.keys)[rows.both], return_inverse=True)
        size = calls.max() + 1
        draws[name] = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), 1000)[:, calls]
    for part, by_set in told.items():
        cells, gains, resampled = [], [], []
        for name in names:
            truth = sets[name].examples.urgency[sets[name].both]
            scores = [f1_score(truth, probs.argmax(axis=1), average="macro", zero_division=0) for probs in by_set[name]]
            losses = [log_loss(truth, probs) for probs in by_set[name]]
            cells.append(f"{np.mean(scores):.3f} ({np.mean(losses):.3f})")
            for mine, theirs in zip(by_set[name], told[BASELINE][name], strict=True):
                one, other = (resampled_macro_f1(truth, probs.argmax(axis=1), draws[name]) for probs in (mine, theirs))
                resampled.append(one - other)
                ones = np.ones((1, len(truth)), np.int64)
                gains.append(
                    float(np.subtract(*(resampled_macro_f1(truth, p.argmax(axis=1), ones)[0] for p in (mine, theirs))))
                )
        low, high = np.quantile(np.mean(resampled, axis=0), [0.025, 0.975])
        print(f"{part:<20}" + "".join(f"{cell:>16}" for cell in cells) + f"{np.mean(gains):+12.4f} ({low:+.4f} to {high:+.4f})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, default=ROOT.parent / "shared" / "data" / "embedding_sets")
    parser.add_argument("--calls", type=int, nargs="*", default=[300, 3000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    parts = list(dict.fromkeys([BASELINE, *options.parts]))
    with tempfile.TemporaryDirectory() as folder:
        places = read_sets(options.sets, Path(folder)) | {f"{n} calls": make_corpus(n, Path(folder)) for n in options.calls}
        sets = {}
        for name, run_dir in places.items():
            _, examples, splits = open_run(load_config(ROOT / "configs" / "best.yaml"), run_dir)
            both = np.sort(np.concatenate([splits.train, splits.val]))
            unseen = np.setdiff1d(np.arange(len(examples)), both)
            examples.urgency[unseen] = -1
            sets[name] = Rows(examples, both)
        cues = {f"{n} calls": known(sets[f"{n} calls"], Path(folder) / f"calls-{n}") for n in options.calls}
    told: dict[str, dict[str, list[NDArray[np.float32]]]] = {
        "majority": {name: [majority(rows)] * options.seeds for name, rows in sets.items()}
    }
    for part in parts:
        told[part] = {name: [cross_answer(part, rows, seed) for seed in range(options.seeds)] for name, rows in sets.items()}
        print(f"{part}: done", flush=True)
    print_table(told, sets)
    for name, probs in cues.items():
        truth = sets[name].examples.urgency[sets[name].both]
        score = f1_score(truth, probs.argmax(axis=1), average="macro")
        print(f"{name}: who knows their cues comes to {score:.3f} ({log_loss(truth, probs):.3f})")


if __name__ == "__main__":
    main()
