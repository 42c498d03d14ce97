"""The page says what the run folder's files say, is well-formed and self-contained, and gives nothing away."""

from __future__ import annotations

import html
import json
import os
import re
import warnings
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score, confusion_matrix, precision_recall_fscore_support

from urgency_ray import __version__, storage
from urgency_ray.config import Config
from urgency_ray.errors import Reason, RequestError
from urgency_ray.report import charts, space_charts
from urgency_ray.report.page import write_report
from urgency_ray.report.tuning import cost, importances, rungs, search_seconds
from urgency_ray.report.verdicts import fusion_verdict, tuning_verdict
from urgency_ray.report.words import EXPLANATIONS, value
from urgency_ray.schema import PREDICTION_SCHEMA, SENTIMENT_LABELS, URGENCY_LABELS
from urgency_ray.scoring.blocks import ClassificationBlock, Difference, NetBenefit, SearchSummary
from urgency_ray.scoring.metrics import expected_calibration_error, net_benefit
from urgency_ray.training.history import EpochRow

SPACE = {
    "loss_mixture": {"type": "simplex", "fields": ["loss.kl_weight", "loss.focal_weight", "loss.cross_entropy_weight"]},
    "train.learning_rate": {"type": "float", "low": 1e-5, "high": 5e-3, "log": True},
    "model.hidden_dim": {"type": "categorical", "choices": [128, 256, 512, 768]},
    "model.dropout": {"type": "float", "low": 0.1, "high": 0.6},
    "sampler.name": {"type": "categorical", "choices": ["weighted", "none"]},
    "sampler.power": {"type": "float", "low": 0.0, "high": 1.0},
}
CALL_ID = "5f0c1a7e9b"
TRANSCRIPT = "여기 불이 났어요"
VOID_TAGS = {"meta", "br", "wbr"}


def scored_block(truth: Any, probs: Any, labels: Any = URGENCY_LABELS) -> Any:
    """A block of metrics.json, worked out here with scikit-learn."""
    called = probs.argmax(axis=1)
    classes = range(len(labels))
    precision, recall, f1, support = precision_recall_fscore_support(truth, called, labels=classes, zero_division=0)
    confusion = confusion_matrix(truth, called, labels=classes)
    rows = zip(labels, precision, recall, f1, support, strict=True)
    block = {
        "num_rows": len(truth),
        "accuracy": float((truth == called).mean()),
        "macro_f1": float(f1.mean()),
        "macro_f1_interval": [float(f1.mean()) - 0.045, float(f1.mean()) + 0.043],
        "per_class": {name: {"precision": p, "recall": r, "f1": f, "support": int(n)} for name, p, r, f, n in rows},
        "confusion": confusion.tolist(),
        "expected_calibration_error": 0.0437,
        "expected_calibration_error_uncalibrated": 0.0914,
        "temperature": 1.375,
    }
    if labels == URGENCY_LABELS:
        block |= {
            "quadratic_kappa": float(cohen_kappa_score(truth, called, weights="quadratic")),
            "ordinal_mae": float(np.abs(truth - called).mean()),
            "recall_high": float(recall[2]),
            "high_called_low": float(confusion[2, 0] / support[2]),
        }
    return block


def draw_rows(
    rng: np.random.Generator, num_rows: int, skill: float, num_classes: int = 3
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    truth = rng.choice(num_classes, num_rows)
    logits = rng.normal(size=(num_rows, num_classes)) - skill * np.abs(np.arange(num_classes) - truth[:, None])
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth, probs


def make_metrics(rng: np.random.Generator, truth: Any, probs: Any) -> Any:
    val = scored_block(*draw_rows(rng, 330, 0.9))
    test = scored_block(truth, probs)
    sentiment = {name: scored_block(*draw_rows(rng, 320, 0.6, 4), SENTIMENT_LABELS) for name in ("val", "test")}
    splits = {"val": {"urgency": val, "sentiment": sentiment["val"]}, "test": {"urgency": test, "sentiment": sentiment["test"]}}
    ablation = {name: scored_block(*draw_rows(rng, 342, skill)) for name, skill in (("audio", 0.35), ("text", 0.7))}
    return {"splits": splits, "ablation": {"fused": test, **ablation}}


def make_history(rng: np.random.Generator, epochs: int = 26) -> Any:
    rows = []
    for name, top in (("fused", 0.63), ("audio", 0.5), ("text", 0.57)):
        for epoch in range(1, epochs + 1):
            rise = 1 - np.exp(-epoch / 6)
            score = top - 0.3 + 0.3 * rise + rng.normal(0, 0.008)
            rows.append(
                {
                    "modalities": name,
                    "epoch": epoch,
                    "train_loss": float(1.1 - 0.5 * rise + rng.normal(0, 0.02)),
                    "val_loss": float(1.72 - top - 0.35 * rise + 0.006 * epoch + rng.normal(0, 0.008)),
                    "val_macro_f1": float(score),
                    "val_score": float(score),
                    "val_accuracy": float(score + 0.02),
                    "learning_rate": 3e-5,
                    "seconds": 1.4,
                }
            )
    return rows


def make_trials(rng: np.random.Generator, num_trials: int = 30) -> Any:
    rows = []
    for number in range(num_trials):
        state = "failed" if number == 7 else "stopped" if number > 9 and rng.random() < 0.55 else "completed"
        weights = rng.dirichlet([1, 1, 1])
        rate = 10 ** rng.uniform(-5, -2.3)
        score = 0.62 - 0.06 * abs(np.log10(rate) + 3.6) - (0.07 if state == "stopped" else 0) + rng.normal(0, 0.015)
        rows.append(
            {
                "number": number,
                "state": state,
                "val_macro_f1": None if state == "failed" else float(score),
                "epochs": 5 if state == "stopped" else 40,
                "seconds": float(rng.uniform(8, 60)),
                "train.learning_rate": float(rate),
                "model.hidden_dim": int(rng.choice([128, 256, 512, 768])),
                "model.dropout": float(rng.uniform(0.1, 0.6)),
                "loss.kl_weight": float(weights[0]),
                "loss.focal_weight": float(weights[1]),
                "loss.cross_entropy_weight": float(weights[2]),
                "sampler.name": str(rng.choice(["weighted", "none"])),
                "sampler.power": float(rng.uniform(0, 1)),
            }
        )
    return rows


def add_times(trials: Any) -> Any:
    """What newer searches also write: when each trial started (two at a time), and the rows of tune/history.parquet."""
    free, history = [0.0, 0.0], []
    for trial in trials:
        slot = int(np.argmin(free))
        trial["start"] = datetime(2026, 11, 21, 9, tzinfo=UTC) + timedelta(seconds=free[slot])
        free[slot] += trial["seconds"] + 0.4
        for epoch in range(1, trial["epochs"] + 1) if trial["state"] != "failed" else ():
            score = trial["val_macro_f1"] - 0.25 * np.exp(-epoch / 4) * (epoch < trial["epochs"])
            row = {"trial": trial["number"], "epoch": epoch, "val_macro_f1": score, "best_val_macro_f1": score}
            history.append(row)
    return history


def make_run(folder: Path) -> Path:
    """A run folder with every file that the report reads, of a real corpus (no ceiling.json)."""
    rng = np.random.default_rng(7)
    run = folder / "119-run"
    config = Config().replace(
        {
            "data.root": "/home/somebody/secret/calls",
            "train.ablation": True,
            "train.learning_rate": 2e-4,
            "model.hidden_dim": 256,
            "tune.space": SPACE,
        }
    )
    truth, probs = draw_rows(rng, 342, 0.85)
    trials = make_trials(rng)
    best = max((trial for trial in trials if trial["val_macro_f1"] is not None), key=lambda trial: trial["val_macro_f1"])
    fields = {key: value for key, value in best.items() if "." in key}
    encoders = {
        "audio_encoder": {"name": "facebook/data2vec-audio-base", "revision": None, "pooling": "mean", "window_sec": None},
        "text_encoder": {"name": "jhgan/ko-sroberta-multitask", "revision": None, "pooling": "cls", "max_tokens": 384},
    }
    documents = {
        # Trained by one config, searched from another, as README does.
        "config.yaml": config.replace({"tune.space": {}, "tune.grace_epochs": 7, "loss.kl_weight": 1.0}).to_yaml(),
        "tune/config.yaml": config.to_yaml(),
        "tune/best.yaml": yaml.safe_dump(config.replace(fields).model_dump(), allow_unicode=True),
        "extract.json": {
            "calls_read": 3421,
            "calls_embedded": 3352,
            "calls_rejected": 69,
            "rejected_by_reason": {"missing_label": 31, "missing_audio": 22, "truncated_audio": 9, "unknown_urgency": 7},
            "rows_embedded": 3352,
            "rows_rejected": 0,
            "rows_rejected_by_reason": {},
            "audio_sec": 261_300.0,
            "wall_sec": 1875.4,
            "rows_windowed": 12,
            "texts_windowed": 7,
            "texts_truncated": 101,
            "tokens_dropped": 8123,
            "fingerprint": {**encoders, "unit": "call", "code_version": "0.1.0"},
            "manifest_sha256": "5d1f" * 16,
        },
        "history.json": make_history(rng),
        "metrics.json": make_metrics(rng, truth, probs),
        "tune/metrics.json": {
            "study": "search-5f0c",
            "num_trials": len(trials),
            **{state: sum(trial["state"] == state for trial in trials) for state in ("completed", "stopped", "failed")},
            "best_trial": best["number"],
            "best_score": best["val_macro_f1"],
            "selection_optimism": best["val_macro_f1"] - 0.6,
            "best": fields,
            "val": scored_block(*draw_rows(rng, 330, 0.7)) | {"macro_f1": best["val_macro_f1"]},
            "test": scored_block(*draw_rows(rng, 342, 0.6)) | {"macro_f1": 0.6},
            "defaults": {name: scored_block(*draw_rows(rng, 342, 0.55)) for name in ("val", "test")},
            "difference": {"macro_f1": 0.0131, "interval": [-0.0211, 0.0466], "verdict": "not_better"},
            "wall_sec": 912.0,
            "seed": 0,
        },
    }
    for name, content in documents.items():
        storage.write_text(str(run / name), content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    predictions = {
        "example_id": [f"{CALL_ID}-{index}" for index in range(342)],
        "call_id": [f"{CALL_ID}{index}" for index in range(342)],
        "split": ["test"] * 342,
        "urgency": truth,
        "urgency_pred": probs.argmax(axis=1),
        **{f"prob_{key}": probs[:, index] for index, key in enumerate(("low", "mid", "high"))},
    }
    # No such column is written today; were there one, it must not reach the page.
    table = pa.table(predictions).cast(PREDICTION_SCHEMA).append_column("text", pa.array([TRANSCRIPT] * 342))
    others = table.set_column(2, PREDICTION_SCHEMA.field("split"), pa.array(["train"] * 300 + ["unlabelled"] * 42))
    storage.write_table(str(run / "predictions.parquet"), pa.concat_tables([others, table]))
    storage.write_table(str(run / "tune/history.parquet"), pa.Table.from_pylist(add_times(trials)))
    storage.write_table(str(run / "tune/trials.parquet"), pa.Table.from_pylist(trials))
    return run


class Page(HTMLParser):
    """Checks that tags close in order, and collects text, ids and references."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: Any, attributes: Any) -> None:
        self.tags.add(tag)
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        assert not [name for name in names if name.startswith("on")]
        self.ids += [value for name, value in attributes if name == "id"]
        self.references += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "data", "action")
        ]
        self.references += [found for _, value in attributes for found in re.findall(r"url\((.*?)\)", value or "")]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: Any, attributes: Any) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID_TAGS:
            self.open.pop()

    def handle_endtag(self, tag: Any) -> None:
        if tag not in VOID_TAGS:
            assert self.open.pop() == tag

    def handle_data(self, data: Any) -> None:
        if "style" not in self.open:
            self.words.append(data)
        else:
            assert "url(" not in data and "@import" not in data


@pytest.fixture(scope="module")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def full_html(full_run: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target = write_report(str(full_run))
    assert target == str(full_run / "report.html")
    return Path(target).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def full_text(full_html: Any) -> str:
    return Page(full_html).text


def load(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text(encoding="utf-8"))


def keep_only(run: Path, folder: Path, *names: str) -> Path:
    """A copy of the run folder with the configs and the named files."""
    target = folder / "part"
    for name in ("config.yaml", "tune/config.yaml", *names):
        storage.write_bytes(str(target / name), (run / name).read_bytes())
    return target


def rewrite(run: Path, name: str, content: Any) -> None:
    storage.write_text(str(run / name), json.dumps(content, ensure_ascii=False))


def render(run: Path) -> Page:
    return Page(Path(write_report(str(run))).read_text(encoding="utf-8"))


def test_page_is_well_formed_and_refers_to_nothing_outside(full_html: Any) -> None:
    page = Page(full_html)
    assert "script" not in page.tags
    assert {"svg", "table", "h2"} <= page.tags
    assert len(page.ids) == len(set(page.ids)), "ids of inline charts clash"
    assert page.references
    assert all(reference.startswith("#") and reference[1:] in page.ids for reference in page.references)


def test_headline_holds_the_figures_of_the_test_split(full_run: Any, full_text: Any) -> None:
    block = load(full_run, "metrics.json")["splits"]["test"]["urgency"]
    low, high = block["macro_f1_interval"]
    assert f"Macro-F1, test {block['macro_f1']:.3f} 95 % interval {low:.3f} to {high:.3f}, n = 342" in full_text
    counts = block["confusion"][2]
    assert f"Recall of 상, test {100 * counts[2] / sum(counts):.1f} % {counts[2]} of {sum(counts)} found" in full_text
    share_low = f"{100 * counts[0] / sum(counts):.1f} %"
    assert f"상 called 하, test {share_low} {counts[0]} of {sum(counts)}: the costly error" in full_text
    assert "Calibration error, test 4.4 %" in full_text


def test_tables_hold_every_class_measure_and_confusion_cell(full_run: Any, full_text: Any) -> None:
    for tasks in load(full_run, "metrics.json")["splits"].values():
        block = tasks["urgency"]
        for row in block["per_class"].values():
            assert f"{row['precision']:.3f} {row['recall']:.3f} {row['f1']:.3f} {row['support']}" in full_text
        for counts in block["confusion"]:
            assert " ".join(f"{count} {100 * count / sum(counts):.1f} %" for count in counts) in full_text
        assert f"{block['quadratic_kappa']:.3f}" in full_text
        assert f"{block['ordinal_mae']:.3f}" in full_text
    for label, row in load(full_run, "metrics.json")["splits"]["test"]["sentiment"]["per_class"].items():
        assert f"{label} {row['precision']:.3f} {row['recall']:.3f} {row['f1']:.3f}" in full_text


def test_a_class_without_rows_shows_a_dash(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "metrics.json")
    metrics = load(run, "metrics.json")
    block = metrics["splits"]["test"]["urgency"]
    block["per_class"]["상"] = {"precision": 0.0, "recall": float("nan"), "f1": 0.0, "support": 0}
    block["confusion"][2] = [0, 0, 0]
    block["recall_high"] = block["high_called_low"] = float("nan")
    rewrite(run, "metrics.json", metrics)
    text = render(run).text
    assert "Recall of 상, test – 0 of 0 found" in text
    assert "상 high 0 – 0 – 0 –" in text


def test_extraction_adds_up_and_explains_each_reason(full_text: Any) -> None:
    assert "3,421 calls read = 3,352 embedded + 69 rejected." in full_text
    assert "139 times as fast as it plays" in full_text
    assert "7 were read in parts and 101 cut, which cost 8,123 tokens" in full_text
    assert f"missing_label 31 {EXPLANATIONS[Reason.MISSING_LABEL]}" in full_text
    assert full_text.index("missing_label 31") < full_text.index("missing_audio 22") < full_text.index("unknown_urgency 7")
    assert "do not add up" not in full_text


def test_calls_that_do_not_add_up_are_pointed_out(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "extract.json")
    rewrite(run, "extract.json", load(run, "extract.json") | {"calls_read": 3422})
    assert "The calls do not add up. 3,352 embedded and 69 rejected are not 3,422 read." in render(run).text


FILES = {
    "seen": 6950,
    "read": 6842,
    "not_read": {".csv": 90, ".txt": 11, "hidden": 7},
    "calls_by_split": {"training": 2900, "validation": 521},
    "copies": 1200,
    "near_misses": {},
}


def test_the_files_seen_add_up_and_are_named_and_counted(full_run: Any, full_text: Any, tmp_path: Path) -> None:
    assert "files seen" not in full_text, "of an import, or of an older version, they are not known"
    run = keep_only(full_run, tmp_path, "extract.json")
    rewrite(run, "extract.json", load(run, "extract.json") | {"files": FILES})
    text = render(run).text
    assert "6,950 files seen = 6,842 read + 108 not read (90 .csv, 11 .txt, 7 hidden)." in text
    assert "Calls that can be read, by the provider’s split: 2,900 training, 521 validation." in text
    assert "1,200 of the rejects are copies of these calls" in text
    assert "do not add up" not in text


def test_files_that_do_not_add_up_are_pointed_out(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "extract.json")
    rewrite(run, "extract.json", load(run, "extract.json") | {"files": FILES | {"seen": 6951, "not_read": {}}})
    assert "The files do not add up. 6,842 read and 0 not read are not 6,951 seen." in render(run).text


def test_rows_that_are_utterances_are_called_so_and_counted(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "extract.json")
    storage.write_text(str(run / "config.yaml"), "data: {unit: utterance}\n")
    counts = {"rows_embedded": 98_765, "rows_rejected": 41, "rows_rejected_by_reason": {"too_short": 41}}
    rewrite(run, "extract.json", load(run, "extract.json") | counts)
    text = render(run).text
    assert "Of their utterances 98,765 are embedded and 41 rejected." in text
    assert f"too_short 41 {EXPLANATIONS[Reason.TOO_SHORT]}" in text


@pytest.mark.parametrize(
    ("model", "header", "scored"),
    [
        (
            "{name: hierarchical}",
            "hierarchical on audio and text embeddings of utterances, a call out of all of its own",
            "calls",
        ),
        (
            "{name: cross_modal, text_encoder: monologg/koelectra-base-v3-discriminator}",
            "cross_modal with monologg/koelectra-base-v3-discriminator , trained on the transcripts, on audio embeddings",
            "utterances",
        ),
    ],
)
def test_what_is_classified_is_named(full_run: Any, tmp_path: Path, model: str, header: str, scored: str) -> None:
    run = keep_only(full_run, tmp_path, "metrics.json")
    storage.write_text(str(run / "config.yaml"), f"data: {{unit: utterance}}\nmodel: {model}\n")
    text = render(run).text
    assert header in text
    assert f"A line is what the {scored} are" in text


def test_every_reason_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Reason)


def test_tuning_names_winner_optimism_and_command(full_run: Any, full_html: Any, full_text: Any) -> None:
    tune = load(full_run, "tune/metrics.json")
    assert f"Trial {tune['best_trial']} was picked out of 30 for a validation macro-F1 of" in full_text
    assert f"it reaches {tune['val']['macro_f1']:.3f} on validation and {tune['test']['macro_f1']:.3f} on test (" in full_text
    assert f"The score that it was picked for is {tune['best_score'] - 0.6:.3f} above that on test" in full_text
    assert "urgency-ray train --config RUN/tune/best.yaml --run-dir RUN" in full_text
    rate = tune["best"]["train.learning_rate"]
    assert f"train.learning_ rate 0.0002 {rate:.3g}" in full_text
    assert f"{tune['best_trial']} ◆ completed" in full_text
    for field in tune["best"]:
        assert f'aria-label="Validation macro-F1 by {field}"' in full_html


def test_a_test_score_above_validation_is_no_optimism(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "tune/metrics.json")
    tune = load(run, "tune/metrics.json")
    tune["selection_optimism"] = -0.0123
    rewrite(run, "tune/metrics.json", tune)
    text = render(run).text
    assert "The score that it was picked for is 0.012 below that on test: no sign of selection optimism here." in text
    assert "on test: no sign of selection optimism." in text


def test_a_score_over_folds_is_called_so(full_run: Any, full_text: Any, tmp_path: Path) -> None:
    assert "the mean over its folds" not in full_text
    run = keep_only(full_run, tmp_path, "tune/metrics.json")
    storage.write_text(str(run / "tune/config.yaml"), Config().replace({"tune.folds": 3, "tune.space": SPACE}).to_yaml())
    score = load(run, "tune/metrics.json")["best_score"]
    assert f"picked for a macro-F1 of {score:.3f} on validation, the mean over its folds or repeats, and" in render(run).text


def test_footer_names_run_version_and_newest_input(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "extract.json").rename(tmp_path / "119-run")
    for path in run.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    os.utime(run / "extract.json", (1_750_000_000, 1_750_000_000))
    text = render(run).text
    assert f"119-run · newest input of 2025-06-15 15:06 UTC · urgency_ray {__version__}" in text
    assert write_report(f"file://{run}/.") == f"file://{run}/./report.html"
    assert Page((run / "report.html").read_text(encoding="utf-8")).text == text


def test_nothing_private_reaches_the_page(full_run: Any, full_html: Any) -> None:
    # Of the calls, only the ids of the costliest errors.
    assert full_html.count(CALL_ID) == min(30, load(full_run, "metrics.json")["splits"]["test"]["urgency"]["confusion"][2][0])
    assert TRANSCRIPT not in full_html
    assert "somebody" not in full_html
    assert "data.root" not in full_html
    assert str(full_run.parent) not in full_html


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["extract.json"], {"data"}),
        (["history.json"], {"training"}),
        (["metrics.json"], {"result", "ablation"}),
        (["predictions.parquet"], {"calibration"}),
        (["tune/trials.parquet"], {"tuning"}),
        (["tune/metrics.json", "tune/best.yaml"], {"tuning"}),
    ],
)
def test_a_section_appears_only_with_its_file(full_run: Any, tmp_path: Path, names: list[Any], shown: Any) -> None:
    page = render(keep_only(full_run, tmp_path, *names))
    sections = {"result", "ablation", "calibration", "training", "tuning", "data", "settings"}
    assert sections & set(page.ids) == shown | {"settings"}
    assert {reference[1:] for reference in page.references} & sections == shown | {"settings"}


def test_folders_that_hold_no_run_are_refused(full_run: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"not a run folder \(it has no config.yaml\)"):
        write_report(str(tmp_path))
    with pytest.raises(RequestError, match="nothing to report yet"):
        write_report(str(keep_only(full_run, tmp_path)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{["),
        ("predictions.parquet", "{["),
        ("config.yaml", "{["),
        ("config.yaml", "[1]"),
        ("tune/best.yaml", "3"),
    ],
)
def test_a_damaged_file_is_named(full_run: Any, tmp_path: Path, name: str, content: str) -> None:
    run = keep_only(full_run, tmp_path, "metrics.json")
    storage.write_text(str(run / name), content)
    with pytest.raises(RequestError, match=f"{name}: cannot be read: ") as caught:
        write_report(str(run))
    assert "\n" not in str(caught.value)


def test_markup_in_the_files_is_shown_and_not_run(full_run: Any, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    run = keep_only(full_run, tmp_path, "extract.json", "tune/trials.parquet", "metrics.json")
    extract = load(run, "extract.json")
    extract["rejected_by_reason"] = {evil: 69}
    extract["fingerprint"]["audio_encoder"]["name"] = evil
    rewrite(run, "extract.json", extract)
    trials = [
        trial | {'a"<b>.c': f"{evil} --> id=" if number % 2 else "나"}
        for number, trial in enumerate(make_trials(np.random.default_rng(0)))
    ]
    storage.write_table(str(run / "tune/trials.parquet"), pa.Table.from_pylist(trials))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = render(run)
    assert page.tags.isdisjoint({"script", "b>.c"})
    assert f"{evil} 69 No explanation is known to this version." in page.text


def test_calibration_says_what_the_temperature_changed(full_text: Any) -> None:
    assert "divided by a temperature of 1.375" in full_text
    assert "without it the error would be 9.1 %" in full_text


def test_warnings_and_folds_of_the_training_are_on_the_page(full_run: Any, full_text: Any, tmp_path: Path) -> None:
    assert "Warning of the training" not in full_text
    assert "Cross-validated" not in full_text
    run = keep_only(full_run, tmp_path, "metrics.json")
    metrics = load(run, "metrics.json")
    metrics["warnings"] = ["possible leak: 3 of 342 test rows have the same <audio>"]
    folds = {"each": [{"num_rows": 602, "macro_f1": 0.611}] * 5, "macro_f1_mean": 0.611, "macro_f1_std": 0.024}
    pooled = metrics["splits"]["val"]["urgency"] | {"macro_f1": 0.613, "macro_f1_interval": [0.59, 0.64], "num_rows": 3010}
    metrics["folds"] = folds | {"pooled": pooled}
    rewrite(run, "metrics.json", metrics)
    text = render(run).text
    assert "Warning of the training. Possible leak: 3 of 342 test rows have the same <audio>." in text
    assert "Cross-validated over 5 folds of whole calls: macro-F1 0.611 ± 0.024" in text
    assert "0.613 (0.590 to 0.640) on their 3,010 held-out rows together" in text


def test_a_score_too_good_on_real_calls_is_called_a_leak(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "metrics.json")
    metrics = load(run, "metrics.json")
    assert metrics["splits"]["test"]["urgency"]["macro_f1"] < 0.70
    assert "likely a leak" not in render(run).text
    metrics["splits"]["test"]["urgency"]["macro_f1"] = 0.71
    rewrite(run, "metrics.json", metrics)
    assert "A test macro-F1 above 0.70 on real calls is more likely a leak than a success." in render(run).text
    rewrite(run, "ceiling.json", {"audio": 0.741, "text": 0.752, "fused": 0.853})
    text = render(run).text
    assert "likely a leak" not in text
    assert "best reachable on this synthetic corpus (population figure)" in text
    assert "0.853" in text


def test_a_run_scored_on_validation_only_says_so(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "metrics.json")
    val = load(run, "metrics.json")["splits"]["val"]
    rewrite(run, "metrics.json", {"splits": {"val": val}})
    text = render(run).text
    assert f"Macro-F1, val {val['urgency']['macro_f1']:.3f}" in text
    assert "Macro-F1, test" not in text


def test_predictions_of_another_run_are_pointed_out(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "metrics.json", "predictions.parquet")
    assert "Two different runs" not in render(run).text
    metrics = load(run, "metrics.json")
    metrics["splits"]["test"]["urgency"]["num_rows"] = 300
    rewrite(run, "metrics.json", metrics)
    assert "predictions.parquet holds 342 labelled test rows, metrics.json speaks of 300" in render(run).text


def ablation_block(score: Any, low: Any, high: Any) -> Any:
    return ClassificationBlock.model_construct(num_rows=1200, macro_f1=score, macro_f1_interval=(low, high))


@pytest.mark.parametrize(
    ("fused", "said"),
    [
        (
            ablation_block(0.62, 0.58, 0.66),
            "overlap: fused 0.620 (0.580 to 0.660), text 0.570 (0.530 to 0.610). These 1,200 test rows do not",
        ),
        (ablation_block(0.70, 0.66, 0.74), "Fusing both is better than text"),
        (ablation_block(0.48, 0.44, 0.52), "Fusing both is worse than text"),
    ],
)
def test_verdict_on_fusion_follows_the_intervals(fused: Any, said: str) -> None:
    blocks = {"audio": ablation_block(0.5, 0.46, 0.54), "text": ablation_block(0.57, 0.53, 0.61)}
    verdict = fusion_verdict(blocks | {"fused": fused})
    assert verdict is not None and said in verdict
    assert fusion_verdict(blocks) is None
    assert fusion_verdict({"fused": fused}) is None


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        (3e-5, "3e-05"),
        (0.1 + 0.2, "0.3"),
        (256.0, "256"),
        (None, "null"),
        (True, "true"),
        ("weighted", "weighted"),
        (7, "7"),
        ("/home/me/models/ast", "ast"),
        ("s3://bucket/models/ast/", "ast"),
        ("beomi/KcELECTRA-base", "beomi/KcELECTRA-base"),
    ],
)
def test_settings_are_shown_as_typed_and_paths_by_their_last_part(setting: Any, shown: str) -> None:
    assert value(setting) == shown


def test_charts_are_deterministic_and_keep_text_as_text() -> None:
    history = [EpochRow(**row) for row in make_history(np.random.default_rng(1))]
    svg = charts.macro_f1_curves(history)
    assert svg == charts.macro_f1_curves(history)
    assert re.search(r"<text[^>]*>epoch</text>", svg)
    best = max((row for row in history if row.modalities == "text"), key=lambda row: row.val_macro_f1)
    assert f">{best.epoch}</text>" in svg
    assert "#010203" not in svg and "var(--muted)" in svg


def test_the_epoch_that_the_run_picked_is_marked() -> None:
    scores = {1: 0.3, 2: 0.5, 3: 0.4}
    rows: list[dict[str, Any]] = [
        {"modalities": "text", "epoch": epoch, "val_macro_f1": score} for epoch, score in scores.items()
    ]
    by_macro_f1 = [row | {"val_score": row["val_macro_f1"]} for row in rows]
    by_another = [row | {"val_score": 1 - row["val_macro_f1"]} for row in rows]
    for figures, marked in ((by_macro_f1, "2"), (by_another, "1")):
        history = [EpochRow.model_construct(**row) for row in figures]
        assert re.findall(r"<text[^>]*(?:700|bold)[^>]*>([^<]*)</text>", charts.macro_f1_curves(history)) == [marked]


def test_the_decision_curve_is_drawn_between_flagging_all_and_none() -> None:
    # By hand: of ten calls three are 상; the model finds two of them at every threshold, with one false alarm.
    thresholds = [0.25, 0.5]
    curve = NetBenefit(thresholds=thresholds, model=[0.2 - 0.1 / 3, 0.1], flag_all=[0.3 - 0.7 / 3, -0.4])
    assert net_benefit(np.arange(10) < 3, np.array([0.9, 0.8, 0.1, 0.7, *[0.0] * 6])).model[4:10:5] == pytest.approx(
        curve.model
    )
    svg = charts.net_benefit(curve)
    assert "flag all" in svg and "flag none" in svg and "threshold on P(상)" in svg


def test_members_are_summed_up_by_kind(tmp_path: Path) -> None:
    def row(member: str | None, epoch: int, macro_f1: float) -> dict[str, Any]:
        figures = {"train_loss": 0.5, "val_loss": 0.6, "val_macro_f1": macro_f1, "val_accuracy": 0.7, "val_score": macro_f1}
        return {"modalities": "fused", "member": member, "epoch": epoch, **figures, "learning_rate": 0.1, "seconds": 1.5}

    history = [row("concat-0", 1, 0.5), row("concat-0", 2, 0.6), row("concat-1", 1, 0.8), row("linear-0", 1, 0.9)]
    (tmp_path / "history.json").write_text(json.dumps(history), encoding="utf-8")
    (tmp_path / "config.yaml").write_text(
        Config().replace({"train.select_by": "urgency_likelihood"}).to_yaml(), encoding="utf-8"
    )
    page = Path(write_report(str(tmp_path))).read_text(encoding="utf-8")
    assert "The epoch with the best likelihood of the validation labels" in page
    # Of two members: (2 + 1) / 2 epochs, the best being the second and the first, macro-F1 (0.6 + 0.8) / 2, 4.5 s in all.
    (line,) = re.findall(r"<tr><th>fused, concat<br><small>means of 2 members.*?</tr>", page)
    assert re.findall(r">([^<>]+)</td>", line) == ["1.5", "1.5", "0.700", "70.0 %", "4.5 s"]
    assert "<tr><th>fused, linear</th>" in page


def test_reliability_dots_explain_the_calibration_error() -> None:
    # Two bins: 0.62 stated and 0.5 right for 4 rows, 0.9 stated and all right for 1 row: the figure is 0.8 * 0.12 + 0.2 * 0.1.
    confidence, correct = np.array([0.62] * 4 + [0.9]), np.array([True, False, True, False, True])
    probs = np.column_stack([confidence, 1 - confidence, np.zeros(5)])
    assert expected_calibration_error(np.where(correct, 0, 1), probs) == pytest.approx(0.116)
    svg = charts.reliability(confidence.tolist(), correct.tolist())
    assert len(re.findall(r"<use [^>]*fill: #2f7fbf", svg)) == 2


def test_slices_take_a_log_axis_where_the_search_did() -> None:
    trials = [{"number": n, "state": "completed", "val_macro_f1": 0.5 + n / 100, "x": 10.0**-n} for n in range(1, 5)]
    assert ">1e-3<" in space_charts.trial_slice(trials, "x", 4, logarithmic=True)
    assert "1e-" not in space_charts.trial_slice(trials, "x", 4)


def test_the_first_lines_say_whether_the_search_found_better(full_run: Any, full_text: Any, tmp_path: Path) -> None:
    tune = load(full_run, "tune/metrics.json")
    optimism = tune["best_score"] - tune["test"]["macro_f1"]
    said = (
        "The search found nothing that is better than the recipe’s defaults beyond noise: "
        f"trial {tune['best_trial']} has test macro-F1 {tune['test']['macro_f1']:.3f} against "
        f"{tune['defaults']['test']['macro_f1']:.3f}, a difference of +0.013 (95 % interval −0.021 to +0.047)"
    )
    assert full_text.index(said) < full_text.index("Macro-F1, test")
    assert full_text.index(f"{optimism:.3f} of selection optimism") < full_text.index("Macro-F1, test")
    run = keep_only(full_run, tmp_path, "tune/metrics.json")
    older = {key: block for key, block in tune.items() if key not in ("defaults", "difference")}
    rewrite(run, "tune/metrics.json", older)
    assert "is better than the recipe’s defaults was not measured." in render(run).text


def test_a_search_that_has_not_ended_shows_its_trials_so_far(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "tune/trials.parquet", "tune/history.parquet")
    scored = sum(row["state"] != "failed" for row in pq.read_table(run / "tune" / "trials.parquet").to_pylist())
    shown = render(run).text
    assert f"This search has not come to its end. {scored} trials have a score so far" in shown
    assert "best of" in shown
    assert "This search has not come to its end." not in render(full_run).text


@pytest.mark.parametrize(
    ("interval", "verdict", "said", "better"),
    [
        ([0.004, 0.05], "better", "The search found better: trial 3 beats", True),
        ([-0.01, 0.05], "not_better", "found nothing that is better", False),
        ([-0.05, -0.01], "worse", "Keep the recipe’s defaults: trial 3", False),
        ([0.0, 0.0], "same", "picked the recipe’s defaults themselves", False),
    ],
)
def test_verdict_on_the_search_follows_the_interval(interval: list[Any], verdict: str, said: str, better: bool) -> None:
    difference = {"macro_f1": sum(interval) / 2, "interval": interval, "verdict": verdict}
    test = ClassificationBlock.model_construct(macro_f1=0.6)
    summary = SearchSummary.model_construct(best_trial=3, test=test, difference=Difference.model_construct(**difference))
    words, found = tuning_verdict(summary)
    assert said in words
    assert found is better


def test_importances_are_the_shares_of_variance() -> None:
    # Of 2 a + b with a and b uniform, a alone makes 4/5 of the variance, b 1/5; c does nothing, e is not in every trial.
    rng = np.random.default_rng(0)
    trials = [
        {"x.a": 10**a, "x.b": b, "x.c": c, "x.d": 1, "x.e": None if c == "p" else 1.0, "val_macro_f1": 2 * a + b}
        for a, b, c in zip(rng.random(300), rng.random(300), rng.choice(["p", "q"], 300), strict=True)
    ]
    shares = importances(trials, ["x.a", "x.b", "x.c", "x.d", "x.e"], {"x.a"})
    assert shares == {
        "x.a": pytest.approx(0.8, abs=0.06),
        "x.b": pytest.approx(0.2, abs=0.06),
        "x.c": pytest.approx(0, abs=0.02),
    }
    assert importances([trial | {"val_macro_f1": 0.5} for trial in trials], ["x.a"], set()) == {}


def test_few_trials_are_said_to_mean_little(full_run: Any, full_text: Any, tmp_path: Path) -> None:
    assert "Means little: 29 trials are too few for 8 fields." in full_text
    run = keep_only(full_run, tmp_path, "tune/trials.parquet")
    many = make_trials(np.random.default_rng(0), 60)
    for trial in many:
        trial["sampler.power"] = None if trial["sampler.name"] == "none" else trial["sampler.power"]
        if trial["model.hidden_dim"] == 128:
            trial |= {"loss.kl_weight": None, "loss.focal_weight": None, "loss.cross_entropy_weight": None}
    storage.write_table(str(run / "tune/trials.parquet"), pa.Table.from_pylist(many))
    text = render(run).text
    assert "Means little" not in text
    assert "Left out, since not every trial has them or they never changed: loss.kl_weight, loss.focal_weight," in text


def test_rungs_count_who_reached_them_and_who_was_stopped() -> None:
    ended = [("stopped", 2), ("stopped", 2), ("stopped", 6), ("completed", 9), ("completed", 4), ("stopped", 3)]
    trials = [{"state": state, "epochs": epochs, "val_macro_f1": epochs / 10} for state, epochs in ended]
    own = {"tune.grace_epochs": 2, "tune.reduction_factor": 3, "train.epochs": 12}
    assert rungs(trials, own) == [
        {"epoch": 2, "reached": 6, "stopped": 3, "best_stopped": 0.3},
        {"epoch": 6, "reached": 2, "stopped": 1, "best_stopped": 0.6},
    ]
    assert rungs(trials, own | {"train.epochs": 2}) == []  # the first rung is the end
    spent = cost([trial | {"seconds": 10.0} for trial in trials], 30.0, own)
    assert (spent["epochs"], spent["full_epochs"]) == (26, 72)
    assert (spent["span_sec"], spent["at_once"], spent["per_minute"], spent["stopped_sec"]) == (30.0, 2.0, 12.0, 40.0)


def test_pauses_of_an_interrupted_search_are_left_out() -> None:
    begun = datetime(2026, 11, 21, 9, tzinfo=UTC)
    seconds = {0: 100.0, 50: 10.0, 130: 5.0, 3735: 10.0}
    trials = [{"start": begun + timedelta(seconds=start), "seconds": took} for start, took in seconds.items()]
    assert search_seconds(trials) == [0.0, 50.0, 130.0, 135.0]  # 30 s without a trial are no pause, 3,600 s are


def test_a_trial_that_never_began_leaves_the_clock_to_the_others(full_run: Any, tmp_path: Path) -> None:
    run = keep_only(full_run, tmp_path, "tune/trials.parquet")
    lost = {"number": 30, "state": "failed", "val_macro_f1": None, "epochs": 0, "seconds": None, "start": None}
    table = pa.Table.from_pylist([*pq.read_table(run / "tune/trials.parquet").to_pylist(), lost])
    storage.write_table(str(run / "tune/trials.parquet"), table)
    page = (run / write_report(str(run))).read_text(encoding="utf-8")
    assert 'aria-label="Best validation macro-F1 by time' in page
    assert "trials a minute" in page


def test_a_mixture_is_a_point_of_an_equilateral_triangle() -> None:
    fields = ["loss.a", "loss.b", "loss.c"]
    trials = [
        {"number": n, "state": "completed", "val_macro_f1": 0.5 + n / 100, **dict(zip(fields, np.eye(3)[n], strict=True))}
        for n in range(3)
    ]
    svg = space_charts.simplex(trials, fields, [0.2, 0.3, 0.5], 2)
    points = np.array(re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg)[:3], float)
    sides = [np.linalg.norm(points[i] - points[j]) for i, j in ((0, 1), (1, 2), (2, 0))]
    assert sides == pytest.approx([sides[0]] * 3, rel=1e-3)
    assert sides[0] > 100


def test_charts_of_a_search_appear_with_what_they_need(full_run: Any, full_html: Any, tmp_path: Path) -> None:
    always = ("Validation macro-F1 by trial", "Parallel coordinates of the trials", "Macro-F1 by mixture of loss.kl_weight")
    timed = ("Best validation macro-F1 by time", "Best validation macro-F1 by epoch of every trial")
    assert all(f'aria-label="{label}' in full_html for label in (*always, *timed, "Importance of each searched field"))
    run = keep_only(full_run, tmp_path, "tune/trials.parquet")
    storage.write_table(str(run / "tune/trials.parquet"), pa.Table.from_pylist(make_trials(np.random.default_rng(0))))
    page = (run / write_report(str(run))).read_text(encoding="utf-8")
    assert all(f'aria-label="{label}' in page for label in always)
    assert not any(label in page for label in timed)


def test_spread_over_folds_is_beside_the_score(full_run: Any, full_text: Any, tmp_path: Path) -> None:
    assert "standard deviation over its folds or repeats" not in full_text
    run = keep_only(full_run, tmp_path, "tune/trials.parquet")
    trials = [trial | {"val_macro_f1_std": 0.0123} for trial in make_trials(np.random.default_rng(0))]
    storage.write_table(str(run / "tune/trials.parquet"), pa.Table.from_pylist(trials))
    text = render(run).text
    best = max(trial["val_macro_f1"] for trial in trials if trial["val_macro_f1"] is not None)
    assert f"{best:.3f} ± 0.012" in text


def test_the_winner_is_shown_as_yaml_without_paths(full_run: Any, full_html: Any, tmp_path: Path) -> None:
    best = load(full_run, "tune/metrics.json")["best"]
    shown = yaml.safe_load(html.unescape(re.findall(r"<pre>(.*?)</pre>", full_html, re.DOTALL)[1]))
    assert shown["train"]["learning_rate"] == pytest.approx(best["train.learning_rate"], rel=1e-3)
    assert shown["loss"]["kl_weight"] == pytest.approx(best["loss.kl_weight"], rel=1e-3)
    assert set(shown) <= {"model", "loss", "sampler", "train", "split"}
    run = keep_only(full_run, tmp_path, "tune/metrics.json")
    other = {"model.name": "cross_modal", "model.text_encoder": "/home/somebody/models/koelectra"}
    storage.write_text(str(run / "tune/best.yaml"), Config().replace(other).to_yaml())
    page = render(run)
    assert "text_encoder: koelectra" in page.text
    assert "somebody" not in page.text
