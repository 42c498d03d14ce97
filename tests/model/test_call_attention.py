"""A call out of its utterances: grouping, the attention over them, and training on calls."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accounts import make_accounts
from fitting import NO_DROPOUT, SMALL, check_two_workers_are_one, rounding_noise, run
from numpy.typing import NDArray
from shared_runs import Extracted, KnownCorpus, Share, Trained
from sklearn.metrics import f1_score

from urgency_ray.config import Config, ModelConfig, SplitConfig
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import load_examples
from urgency_ray.examples.splits import split_examples
from urgency_ray.examples.utterances import UNKNOWN_SPEAKER, Utterances, group_utterances
from urgency_ray.model.batch import gather_batch
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.inference import explain_probabilities, predict_examples
from urgency_ray.model.load import load_model
from urgency_ray.prediction.by_call import CALL_OUTPUT_SCHEMA
from urgency_ray.schema import PREDICTION_SCHEMA, embedding_schema
from urgency_ray.scoring.metrics import paired_macro_f1_difference
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import build_model

Embeddings = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]

pytestmark = pytest.mark.usefixtures("one_thread")

CALLS = SMALL | {"model.name": "hierarchical"}
CPU = torch.device("cpu")


def make_utterances(counts: Any, seed: int = 0) -> Utterances:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    start = np.sort(rng.random((offsets[-1], 2)), axis=1).astype(np.float32)
    return Utterances(offsets, rng.integers(0, 2, offsets[-1]), start)


def make_embeddings(num_rows: int, seed: int = 0) -> Embeddings:
    rng = np.random.default_rng(seed)
    audio, text, acoustic = (rng.standard_normal((num_rows, dim)).astype(np.float32) for dim in (6, 5, 5))
    return audio, text, acoustic


def explain(
    model: UrgencyClassifier, embeddings: Embeddings, utterances: Utterances
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Each task's probabilities by call, and the weight of each utterance in its call."""
    probs, weights = explain_probabilities(model, *embeddings, utterances)
    assert weights is not None
    return probs, weights


def make_data(num_calls: int = 203, noise: float = 0.5, seed: int = 0) -> Any:
    """Calls of 1 to 6 utterances; the one whose first text column is raised carries the call's label in voice and words."""
    rng = np.random.default_rng(seed)
    utterances = make_utterances(rng.integers(1, 7, num_calls), seed)
    urgency = rng.choice(3, size=num_calls, p=[0.5, 0.3, 0.2])
    num_rows = utterances.offsets[-1]
    planted = utterances.offsets[:-1] + rng.integers(0, utterances.counts)
    cue = rng.integers(0, 3, num_rows)
    cue[planted] = urgency
    audio, text = (
        (2 * rng.standard_normal((3, dim))[cue] + noise * rng.standard_normal((num_rows, dim))).astype(np.float32)
        for dim in (6, 5)
    )
    text = np.insert(text, 0, 0.0, axis=1)
    text[planted, 0] = 3.0
    acoustic = rng.normal(4, 1, (num_rows, 5)).astype(np.float32)
    order = rng.permutation(num_calls)
    sentiment = rng.integers(-1, 4, num_calls)
    return TrainingData(audio, text, acoustic, urgency, sentiment, order[40:], order[:40], utterances), planted


def build(**changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {name.split(".")[1]: value for name, value in SMALL.items() if name.startswith("model.")}
    with_sentiment = changes.pop("with_sentiment", False)
    return UrgencyClassifier(ModelConfig(**(sizes | {"name": "hierarchical"} | changes)), 6, 5, with_sentiment).eval()


def frame_of(rows: Any) -> Any:
    return pd.DataFrame(rows, columns=["call_id", "speaker", "start_ms", "end_ms"])


def test_utterances_are_grouped_by_call_with_their_share_of_its_time() -> None:
    frame = frame_of([("a", 0, 0, 1000), ("a", 1, 1000, 4000), ("b", 1, 500, 2000), ("c", None, 0, 9), ("c", 7, None, None)])
    utterances = group_utterances(frame)
    assert utterances.offsets.tolist() == [0, 2, 3, 5]
    assert utterances.counts.tolist() == [2, 1, 2]
    assert utterances.speaker.tolist() == [0, 1, 1, UNKNOWN_SPEAKER, UNKNOWN_SPEAKER]
    # The last call lacks a time: its utterances share it evenly.
    expected = [[0, 0.25], [0.25, 1], [0.25, 1], [0, 0.5], [0.5, 1]]
    np.testing.assert_allclose(utterances.span, expected)
    assert utterances.rows(np.array([2, 0, 2])).tolist() == [3, 4, 0, 1, 3, 4]


@pytest.mark.parametrize("modalities", ["fused", "audio", "text"])
def test_a_call_of_one_utterance_is_what_the_trunk_makes_of_that_utterance(modalities: str) -> None:
    model = build(modalities=modalities)
    plain = UrgencyClassifier(model.config.model_copy(update={"name": "cross_attention"}), 6, 5).eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("attention.")})
    embeddings, calls = make_embeddings(4), np.arange(4)
    probs, weights = explain(model, embeddings, make_utterances([1, 1, 1, 1]))
    np.testing.assert_allclose(weights, 1.0)
    torch.testing.assert_close(
        model(gather_batch(embeddings, make_utterances([1] * 4), calls, CPU))["urgency"],
        plain(gather_batch(embeddings, None, calls, CPU))["urgency"],
    )
    np.testing.assert_allclose(probs["urgency"].sum(axis=1), 1, atol=1e-6)


def test_the_call_is_the_mean_of_its_utterances_by_gated_attention() -> None:
    # Written again from Ilse et al. 2018, equation 9, for one call.
    model = build()
    attention, fused = model.attention, torch.randn(3, model.trunk.out_dim)
    utterances = make_utterances([3])
    turns = gather_batch(make_embeddings(3), utterances, np.array([0]), CPU).turns
    assert turns is not None
    tokens = attention.project(fused) + attention.speaker(turns.speaker) + attention.span(turns.span)
    place = torch.arange(3)[:, None] / 10_000 ** (torch.arange(0, 16, 2) / 16)
    tokens[:, 0::2] += place.sin()
    tokens[:, 1::2] += place.cos()
    context = attention.context(tokens[None])[0]
    scores = (torch.tanh(attention.content(context)) * torch.sigmoid(attention.gate(context))) @ attention.score.weight[0]
    expected = torch.exp(scores) / torch.exp(scores).sum()
    calls, weights = attention(fused, turns)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(calls[0], (expected[:, None] * fused).sum(0))


@pytest.mark.parametrize("modalities", ["fused", "audio", "text"])
def test_a_call_s_result_depends_neither_on_its_batch_nor_on_padding(modalities: str) -> None:
    model = build(modalities=modalities, with_sentiment=True)
    counts = [3, 1, 17, 2, 1, 40]
    utterances, embeddings = make_utterances(counts), make_embeddings(sum(counts))
    together, weights = explain(model, embeddings, utterances)
    for call in range(len(counts)):
        with torch.inference_mode():
            logits, alone = model.explain(gather_batch(embeddings, utterances, np.array([call]), CPU))
        for task in ("urgency", "sentiment"):
            np.testing.assert_allclose(logits[task].softmax(-1)[0], together[task][call], atol=1e-5)
        rows = utterances.rows(np.array([call]))
        np.testing.assert_allclose(alone, weights[rows], atol=1e-5)
        assert weights[rows].sum() == pytest.approx(1, abs=1e-5)


def test_results_are_those_of_the_calls_also_when_they_fill_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, counts = build(), [3, 1, 17, 2, 1, 9, 30]
    utterances, embeddings = make_utterances(counts), make_embeddings(sum(counts))
    whole, weights = explain(model, embeddings, utterances)
    monkeypatch.setattr("urgency_ray.model.batch.ROWS_PER_FORWARD", 4)
    pieces, piece_weights = explain(model, embeddings, utterances)
    np.testing.assert_allclose(pieces["urgency"], whole["urgency"], atol=1e-5)
    np.testing.assert_allclose(piece_weights, weights, atol=1e-5)


@pytest.mark.parametrize("part", ["speaker", "span", "order"])
def test_who_speaks_and_when_count(part: str) -> None:
    model, utterances, embeddings = build(), make_utterances([4]), make_embeddings(4)
    base = explain(model, embeddings, utterances)[1]
    if part == "order":
        audio, text, acoustic = (values[::-1].copy() for values in embeddings)
        other = explain(model, (audio, text, acoustic), utterances)[1][::-1]
    else:
        changed: Any = {"speaker": 1 - utterances.speaker, "span": utterances.span[::-1].copy()}[part]
        other = explain(model, embeddings, utterances._replace(**{part: changed}))[1]
    assert np.abs(base - other).max() > 1e-3


def test_gradients_are_finite_with_calls_of_one_utterance_beside_long_ones() -> None:
    model = build(with_sentiment=True).train()
    utterances = make_utterances([1, 30, 1, 2])
    logits = model(gather_batch(make_embeddings(34), utterances, np.arange(4), CPU))
    sum(values.square().sum() for values in logits.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())


def test_it_runs_in_mixed_precision() -> None:
    model, utterances = build(), make_utterances([1, 30, 2])
    batch = gather_batch(make_embeddings(33), utterances, np.arange(3), CPU)
    exact, weights = model.explain(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough, rough_weights = model.explain(batch)
    torch.testing.assert_close(rough["urgency"].float(), exact["urgency"], rtol=0, atol=0.05)
    torch.testing.assert_close(rough_weights.float(), weights, rtol=0, atol=0.02)


def test_a_saved_model_gives_the_same_result(tmp_path: Path) -> None:
    model = build(with_sentiment=True)
    model.save_pretrained(tmp_path)
    utterances, embeddings = make_utterances([3, 1, 5]), make_embeddings(9)
    expected, weights = explain(model, embeddings, utterances)
    loaded, loaded_weights = explain(UrgencyClassifier.from_pretrained(tmp_path), embeddings, utterances)
    for task, probs in expected.items():
        np.testing.assert_array_equal(loaded[task], probs)
    np.testing.assert_array_equal(loaded_weights, weights)


def test_it_learns_which_utterance_counts() -> None:
    data, planted = make_data(400)
    config = Config().replace(CALLS | {"train.epochs": 15, "train.schedule": "constant", "model.dropout": 0.1})
    epoch, weights = max(run(config, data), key=lambda pair: pair[0].metrics["val_macro_f1"])
    assert epoch.metrics["val_macro_f1"] > 0.85
    model = build_model(config, data)
    model.load_state_dict(weights)
    shares = explain(model, (data.audio, data.text, data.acoustic), data.utterances)[1]
    offsets = data.utterances.offsets[:-1]
    found = shares[planted] == np.maximum.reduceat(shares, offsets)
    assert found[data.val].mean() > 0.85


def test_statistics_are_those_of_the_training_calls_utterances() -> None:
    data, _ = make_data()
    rows = np.concatenate([np.arange(*data.utterances.offsets[[call, call + 1]]) for call in data.train])
    data.acoustic[np.setdiff1d(np.arange(len(data.acoustic)), rows)] += 1000
    model = build_model(Config().replace(CALLS | {"model.standardize_embeddings": True}), data)
    np.testing.assert_allclose(model.standardize_acoustic.mean, data.acoustic[rows].mean(0), rtol=1e-4)
    np.testing.assert_allclose(model.standardize_text.std, data.text[rows].std(0), rtol=1e-3)


def test_a_resumed_run_ends_like_an_unbroken_one_with_dropout_on(tmp_path: Path) -> None:
    config, (data, _) = Config().replace(CALLS | {"train.epochs": 4}), make_data()
    whole = run(config, data)
    torch.save(run(config, data, stop_after=2)[-1][0].state(), tmp_path / "state.pt")
    resumed = run(config, data, resume=torch.load(tmp_path / "state.pt", weights_only=True))
    assert [epoch.metrics["epoch"] for epoch, _ in resumed] == [3, 4]
    for name, value in whole[-1][1].items():
        torch.testing.assert_close(resumed[-1][1][name], value, rtol=0, atol=1e-7)


def test_two_workers_give_the_losses_scores_and_weights_of_one(tmp_path: Path) -> None:
    config = Config().replace(CALLS | NO_DROPOUT | {"loss.sentiment_weight": 0.3, "train.batch_size": 32})
    check_two_workers_are_one(config, make_data()[0], tmp_path, rounding_noise)


def write_run(folder: Any, rows: Any, fingerprint: Any = None) -> Any:
    """A run folder with embedded rows (example_id, call_id, utterance_id, speaker, start_ms, end_ms, urgency)."""
    schema = embedding_schema(2, 3, fingerprint)
    names = ["example_id", "call_id", "utterance_id", "speaker", "start_ms", "end_ms", "urgency"]
    rng = np.random.default_rng(0)
    tree = [
        dict.fromkeys(schema.names)
        | dict(zip(names, row, strict=True))
        | {
            "provider_split": "unknown",
            "status": "embedded",
            "duration_sec": float(number),
            "audio_embedding": [float(number)] * 2,
            "text_embedding": rng.random(3).tolist(),
            "audio_sha256": f"sha-{row[1]}",
        }
        for number, row in enumerate(rows)
    ]
    (folder / "embeddings" / "status=embedded").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(tree, schema), folder / "embeddings" / "status=embedded" / "0.parquet")
    (folder / "extract.json").write_text(make_accounts(len(rows)).model_dump_json())
    return str(folder)


def test_an_example_is_a_call_and_its_rows_stand_together(tmp_path: Path) -> None:
    # Written out of order, and ids of which one begins the other: "a", "a b" and "a/c".
    rows = [
        ("a/0001", "a", "u1", 1, 500, 1500, 2),
        ("a b/0000", "a b", "u0", 0, 0, 800, 0),
        ("a/c/0000", "a/c", "u0", 1, 0, 700, 1),
        ("a/0000", "a", "u0", 0, 0, 400, 2),
    ]
    examples = load_examples(write_run(tmp_path, rows), by_call=True)
    assert examples.keys["example_id"].tolist() == examples.keys["call_id"].tolist() == ["a", "a b", "a/c"]
    assert examples.urgency.tolist() == [2, 0, 1]
    assert examples.utterances is not None
    assert examples.utterances.offsets.tolist() == [0, 2, 3, 4]
    assert examples.audio[:, 0].tolist() == examples.acoustic[:, 0].tolist() == [3, 0, 1, 2]
    assert examples.utterances.speaker.tolist() == [0, 1, 0, 1]
    assert len(examples) == 3
    assert len(load_examples(str(tmp_path))) == 4


def test_rows_of_whole_calls_are_refused(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, [("a", "a", None, None, 0, 1000, 1)])
    with pytest.raises(RequestError, match=r"holds a row a call, but model\.name hierarchical .* data\.unit utterance$"):
        load_examples(run_dir, by_call=True)


def test_splits_and_probabilities_are_of_calls(tmp_path: Path) -> None:
    rows = [
        (f"c{call:03}/{place:04}", f"c{call:03}", "u", place % 2, 1000 * place, 1000 * place + 900, call % 3)
        for call in range(90)
        for place in range(call % 5 + 1)
    ]
    examples = load_examples(write_run(tmp_path, rows), by_call=True)
    splits = split_examples(examples, SplitConfig())
    assert sorted(np.concatenate([part for _, part in splits.items()])) == list(range(90))
    model = build_model(Config().replace(CALLS), TrainingData.from_examples(examples, splits))
    assert predict_examples(model, examples)["urgency"].shape == (90, 3)


@pytest.fixture(scope="module")
def trained_calls(utterances: Extracted, share: Share) -> Trained:
    """(run folder, metrics, config): the session's corpus as utterances, and a hierarchical model of it; read only."""
    from urgency_ray.commands.train import train

    config = utterances[2].replace({"model.name": "hierarchical", "train.epochs": 2})
    return *share("trained_calls", train, lambda run_dir: train(config, run_dir), copy_of=utterances[0]), config


def test_a_run_keeps_the_contract_with_a_row_a_call(trained_calls: Trained) -> None:
    from urgency_ray.commands.evaluate import evaluate_run

    run_dir, metrics, config = trained_calls
    table = pq.read_table(f"{run_dir}/predictions.parquet")
    assert table.schema.equals(PREDICTION_SCHEMA)
    frame = table.to_pandas()
    summary = json.loads(Path(run_dir, "extract.json").read_text())
    assert len(frame) == summary["calls_embedded"] < summary["rows_embedded"]
    assert summary["rows_rejected_by_reason"]["too_short"] > 0, "or nothing is shown of calls that lost some utterances"
    assert (frame["example_id"] == frame["call_id"]).all()
    test = frame[frame["split"] == "test"]
    block = metrics.splits["test"]["urgency"]
    assert block.num_rows == len(test) == 20
    expected = f1_score(test["urgency"], test["urgency_pred"], average="macro", labels=[0, 1, 2], zero_division=0)
    assert block.macro_f1 == pytest.approx(expected)
    assert evaluate_run(config.replace({"model.name": "concat"}), run_dir).splits == metrics.splits, (
        "the model says what it takes"
    )


@pytest.mark.parametrize("suffix", ["parquet", pytest.param("csv", marks=pytest.mark.nightly)])
def test_predict_says_which_utterance_decided(trained_calls: Trained, corpus: KnownCorpus, tmp_path: Path, suffix: str) -> None:
    from urgency_ray.commands.predict import predict

    run_dir, output = trained_calls[0], tmp_path / f"new.{suffix}"
    counts = predict(Config().replace({"data.root": str(corpus[0])}), f"{run_dir}/model", str(output))
    frame = (pd.read_parquet if suffix == "parquet" else pd.read_csv)(output).set_index("call_id")
    assert len(frame) == counts["calls_read"] == counts["calls_predicted"] + counts["calls_rejected"] == 100
    assert counts["rows_predicted"] == counts["calls_predicted"] == frame["urgency_pred"].notna().sum()
    assert counts["utterances_rejected"] == frame["num_utterances_rejected"].sum() > 0
    assert counts["utterances"] == frame["num_utterances"].sum()
    known = pd.read_parquet(f"{run_dir}/predictions.parquet").set_index("call_id")
    heard = frame.loc[known.index]
    for name in ("prob_low", "prob_mid", "prob_high"):
        np.testing.assert_allclose(heard[name], known[name], atol=1e-5)
    assert (heard["num_utterances"] - heard["num_utterances_rejected"] > 0).all()
    rejected = frame[frame["urgency_pred"].isna()]
    assert rejected["reason"].notna().all() and rejected["top_weight"].isna().all()
    if suffix == "parquet":
        assert list(frame.reset_index().columns.sort_values()) == sorted(CALL_OUTPUT_SCHEMA.names)
        for _, row in heard.iterrows():
            weights = [utterance["weight"] for utterance in row["attention"]]
            assert sum(weights) == pytest.approx(1, abs=1e-5)
            assert row["top_weight"] == max(weights)
            assert len(weights) == row["num_utterances"] - row["num_utterances_rejected"]
    else:
        assert sorted(frame.reset_index().columns) == sorted(set(CALL_OUTPUT_SCHEMA.names) - {"attention"})


@pytest.mark.nightly
def test_a_search_and_an_ablation_train_on_calls(trained_calls: Trained, tmp_path: Path) -> None:
    from urgency_ray.commands.train import train
    from urgency_ray.commands.tune import tune

    run_dir = str(shutil.copytree(trained_calls[0], tmp_path / "run"))
    config = trained_calls[2].replace({"train.epochs": 1, "tune.num_trials": 2, "train.ablation": True})
    metrics = train(config, run_dir)
    assert metrics.ablation is not None
    assert {block.num_rows for block in metrics.ablation.values()} == {20}
    assert tune(config, run_dir).test.num_rows == 20
    assert load_model(f"{run_dir}/tune/model").attention is not None


@pytest.mark.slow
def test_where_one_utterance_tells_it_beats_the_pooled_model_and_finds_that_utterance(
    ray_session: None, demo_config: Config, tmp_path: Path
) -> None:
    from urgency_ray.commands.extract import extract
    from urgency_ray.commands.predict import predict
    from urgency_ray.commands.train import train
    from urgency_ray.synthesize.corpus import synthesize
    from urgency_ray.synthesize.words import REPORTING

    root = str(tmp_path / "calls")
    sizes = {"num_calls": 500, "min_call_sec": 14.0, "max_call_sec": 20.0, "cues": "utterance"}
    split = {"use_provider_test": False, "test_fraction": 0.3, "val_fraction": 0.15}
    changes = {f"synthesize.{key}": value for key, value in sizes.items()} | {f"split.{key}": v for key, v in split.items()}
    config = demo_config.replace(changes | {"data.root": root, "train.epochs": 40, "train.early_stop_epochs": 20})
    ceiling = synthesize(root, config.synthesize).ceiling
    test = {}
    for name, unit in (("cross_attention", "call"), ("hierarchical", "utterance")):
        run_dir = str(tmp_path / name)
        variant = config.replace({"model.name": name, "data.unit": unit})
        extract(variant, run_dir)
        train(variant, run_dir)
        frame = pd.read_parquet(f"{run_dir}/predictions.parquet").set_index("call_id")
        test[name] = frame[frame["split"] == "test"]
    pooled, hierarchical = test["cross_attention"], test["hierarchical"]
    assert pooled.index.equals(hierarchical.index)
    difference, (low, _) = paired_macro_f1_difference(
        pooled["urgency"].to_numpy(),
        hierarchical["urgency_pred"].to_numpy(),
        pooled["urgency_pred"].to_numpy(),
        np.arange(len(pooled)),
        num_resamples=2000,
        seed=0,
    )
    assert low > 0.1, f"macro-F1 differs by {difference:.3f}, at least {low:.3f}"
    score = f1_score(hierarchical["urgency"], hierarchical["urgency_pred"], average="macro")
    assert score > max(ceiling.audio, ceiling.text) - 0.05, "about what one cue of the report can tell, or more"

    predict(Config().replace({"data.root": root}), str(tmp_path / "hierarchical" / "model"), str(tmp_path / "new.parquet"))
    output = pd.read_parquet(tmp_path / "new.parquet").set_index("call_id").loc[hierarchical.index]
    rows = pd.read_parquet(tmp_path / "hierarchical" / "embeddings", columns=["call_id", "utterance_id", "text"])
    reports = rows[rows["text"].str.startswith(REPORTING)].set_index("call_id")["utterance_id"].loc[output.index]
    found = (output["top_utterance_id"] == reports).mean()
    by_chance = (1 / output["num_utterances"]).mean()
    assert found > 0.75 > 5 * by_chance, f"found in {found:.3f} of the calls, by chance {by_chance:.3f}"
