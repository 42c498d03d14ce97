"""The card of a saved model says what it was made of, what it reached and what it is not for."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard

from urgency_ray.config import Config
from urgency_ray.model.card import write_model_card
from urgency_ray.model.classifier import UrgencyClassifier

COUNTS = {"train": [70, 68, 62], "val": [9, 8, 7], "test": [11, 10, 9]}


def make_block(macro_f1: Any, ordinal: Any = True) -> Any:
    return {
        "num_rows": 24,
        "accuracy": 0.61,
        "macro_f1": macro_f1,
        "macro_f1_interval": [macro_f1 - 0.05, macro_f1 + 0.04],
        "recall_high": 0.714 if ordinal else None,
        "high_called_low": 0.143 if ordinal else None,
        "expected_calibration_error": 0.031,
        "expected_calibration_error_uncalibrated": 0.122,
        "temperature": 1.75,
    }


def write(tmp_path: Path, fingerprint: Any, **more: Any) -> Any:
    sections = Config().model_dump(include={"data", "audio_encoder", "text_encoder", "split"})
    config = Config().replace({"model.hidden_dim": 16, "model.num_layers": 1, "model.feedforward_dim": 16, "model.head_dim": 8})
    model = UrgencyClassifier(config.model, 240, 512, True, {**sections, "fingerprint": fingerprint})
    model.temperature.copy_(torch.tensor([1.75, 1.0]))
    tasks = {"urgency": make_block(0.632), "sentiment": make_block(0.417, ordinal=False)}
    metrics = {"splits": {"val": tasks, "test": tasks}, "warnings": [], **more}
    write_model_card(tmp_path / "README.md", model, metrics, COUNTS)
    return (tmp_path / "README.md").read_text(encoding="utf-8")


def make_fingerprint() -> Any:
    tree = Config().model_dump(include={"audio_encoder", "text_encoder"})
    tree["audio_encoder"] |= {"weights": "sha256:aa", "window_sec": 30.0, "revision": "v1"}
    tree["text_encoder"] |= {"weights": "built-in"}
    return tree | {"code_version": "0.2.0"}


def test_the_card_states_data_figures_use_and_limits(tmp_path: Path) -> None:
    card = write(tmp_path, make_fingerprint())
    for line in (
        "| split | rows | 하 | 중 | 상 |",
        "| train | 200 | 70 | 68 | 62 |",
        "| test | 30 | 11 | 10 | 9 |",
        "| audio | `spectral` | v1 | sha256:aa | mean | 240 | windows of 30 s |",
        "| text | `hashing` | default | built-in | cls | 512 | at most 384 tokens |",
        "| urgency | test | 24 | 0.632 | 0.582 to 0.672 | 0.610 | 0.714 | 0.143 |",
        "| sentiment | val | 24 | 0.417 | 0.367 to 0.457 | 0.610 | - | - |",
        "## Intended use and limits",
    ):
        assert f"\n{line}\n" in card
    assert "softmax(logits / 1.750)" in card
    assert "expected calibration error on test 0.031, 0.122 without it" in card
    assert "Warnings" not in card
    assert "Cross-validated" not in card
    loaded = ModelCard.load(tmp_path / "README.md")
    assert (loaded.data.language, loaded.data.library_name) == ("ko", "urgency_ray")


def test_the_example_in_python_is_for_models_that_it_fits(tmp_path: Path) -> None:
    example = 'model(Batch(audio, text, acoustic)))["urgency"]'
    assert example in write(tmp_path, make_fingerprint())
    sections = Config().model_dump(include={"data", "audio_encoder", "text_encoder", "split"})
    config = Config().replace({"model.name": "hierarchical", "data.unit": "utterance"})
    model = UrgencyClassifier(config.model, 8, 8, False, {**sections, "fingerprint": make_fingerprint()})
    blocks = {"urgency": make_block(0.632)}
    write_model_card(tmp_path / "README.md", model, {"splits": {"test": blocks}, "warnings": []}, COUNTS)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert example not in card
    assert "one row a call, the words" in card


def test_the_card_repeats_warnings_and_folds(tmp_path: Path) -> None:
    line = "possible leak: 3 of 24 test rows have the same audio as a row of train or val; their scores flatter"
    folds = {
        "each": [{}, {}, {}],
        "macro_f1_mean": 0.611,
        "macro_f1_std": 0.024,
        "pooled": {"macro_f1": 0.613, "num_rows": 224},
    }
    card = write(tmp_path, make_fingerprint(), warnings=[line], folds=folds)
    assert f"\n- {line}\n" in card
    assert "Cross-validated over 3 folds, grouped by call: macro-F1 0.611 ± 0.024 (standard deviation)" in card
    assert "0.613 on all 224 rows together" in card


def test_the_card_of_imported_embeddings_says_so(tmp_path: Path) -> None:
    card = write(tmp_path, None)
    assert "The embeddings (240 numbers of audio, 512 of text) were imported." in card
    assert "does not know what made them" in card
