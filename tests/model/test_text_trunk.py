import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from fitting import check_two_workers_are_one, run
from sklearn.metrics import accuracy_score, f1_score
from tiny_checkpoints import SENTENCES, save_text_checkpoint
from torch.nn import functional
from transformers import AutoTokenizer, ElectraModel

from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.examples.tokens import tokenize
from urgency_ray.model.inference import predict_probabilities
from urgency_ray.model.load import load_model
from urgency_ray.model.text_trunk import KoElectraCrossModal, load_tokenizer
from urgency_ray.training.data import TrainingData
from urgency_ray.training.fit import Epoch, build_model, fit

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = " ".join(SENTENCES).split()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_text_checkpoint(tmp_path_factory.mktemp("text"), "electra")


@pytest.fixture(scope="module")
def steady(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same checkpoint without dropout."""
    folder = shutil.copytree(checkpoint, tmp_path_factory.mktemp("steady") / "electra")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def make_config(checkpoint: str, **changes: Any) -> Config:
    fields = {
        "model.name": "cross_modal",
        "model.text_encoder": checkpoint,
        "model.num_heads": 2,
        "model.acoustic_features": False,
        "train.learning_rate": 1e-3,
        "train.batch_size": 8,
        "train.epochs": 2,
        "loss.sentiment_weight": 0.4,
    }
    return Config().replace(fields | {name.replace("__", "."): value for name, value in changes.items()})


def make_data(config: Config, size: int = 51, seed: int = 0) -> TrainingData:
    """Texts of one to twelve words; the class is told by one of them, and by the audio, faintly."""
    rng = np.random.default_rng(seed)
    urgency = rng.choice(3, size=size, p=[0.5, 0.3, 0.2])
    texts = [" ".join([WORDS[label], *rng.choice(WORDS[3:], rng.integers(0, 12))]) for label in urgency]
    audio = (rng.standard_normal((3, 6))[urgency] + rng.standard_normal((size, 6))).astype(np.float32)
    tokens, _ = tokenize(load_tokenizer(config.model), pa.array(texts))
    text, acoustic = np.zeros((size, 2), np.float32), rng.normal(40, 9, (size, 5)).astype(np.float32)
    order, sentiment = rng.permutation(size), rng.integers(-1, 4, size)
    return TrainingData(audio, text, acoustic, urgency, sentiment, order[16:], order[:16], tokens=tokens)


def make_batch(data: Any, rows: Any = range(6)) -> Any:
    return data.batch(np.asarray(rows), torch.device("cpu"))[0]


def test_the_forward_pass_is_the_recipe_s(checkpoint: str) -> None:
    # Written again from the recipe. With one key the weights of attention are 1: what it gives is the projected value.
    config = make_config(checkpoint, model__acoustic_features=True)
    data = make_data(config)
    model = build_model(config, data).eval()
    batch = make_batch(data)
    own = model.state_dict()

    def linear(values: Any, name: Any) -> Any:
        return values @ own[f"{name}.weight"].T + own[f"{name}.bias"]

    encoder: Any = ElectraModel.from_pretrained(checkpoint)
    encoder.eval()
    cls = encoder(input_ids=batch.token_ids, attention_mask=batch.token_mask).last_hidden_state[:, 0]
    mean, std = (torch.from_numpy(f(data.acoustic[data.train], axis=0)) for f in (np.mean, np.std))
    acoustic = (batch.acoustic - mean) / std
    heard = linear(torch.cat([batch.audio, acoustic], 1), "trunk.project_audio").clamp(min=0)
    width = cls.shape[1]
    value = heard @ own["trunk.attention.in_proj_weight"][2 * width :].T + own["trunk.attention.in_proj_bias"][2 * width :]
    attended = linear(value, "trunk.attention.out_proj")
    fused = functional.layer_norm(cls + attended, (width,), own["trunk.norm.weight"], own["trunk.norm.bias"])
    logits = model(batch)
    for task, num_classes in (("urgency", 3), ("sentiment", 4)):
        expected = linear(fused, task)
        assert logits[task].shape == expected.shape == (6, num_classes)
        torch.testing.assert_close(logits[task], expected, rtol=1e-4, atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours(checkpoint: str) -> None:
    config = make_config(checkpoint)
    data = make_data(config)
    model = build_model(config, data).eval()
    together = model(make_batch(data, range(20)))["urgency"]
    alone = torch.cat([model(make_batch(data, [row]))["urgency"] for row in range(20)])
    assert (together.std(0) > 1e-3).all()
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_probabilities_come_back_in_the_order_of_the_rows(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urgency_ray.examples.tokens.PADDED_TOKENS", 40)
    config = make_config(checkpoint)
    data = make_data(config)
    model = build_model(config, data)
    probs = predict_probabilities(model, data.audio, data.text, data.acoustic, data.tokens)
    expected = model(make_batch(data, range(51)))
    for task in ("urgency", "sentiment"):
        np.testing.assert_allclose(probs[task], expected[task].detach().softmax(-1), atol=1e-5)


def test_tokens_are_the_tokenizer_s_cut_and_counted(checkpoint: str) -> None:
    config = make_config(checkpoint, model__max_tokens=8)
    plain = AutoTokenizer.from_pretrained(checkpoint)
    texts = [SENTENCES[0], " ".join(SENTENCES), "", SENTENCES[3] * 9]
    tokens, num_cut = tokenize(load_tokenizer(config.model), pa.array(texts))
    whole = [len(ids) for ids in plain(texts, verbose=False)["input_ids"]]
    np.testing.assert_array_equal(num_cut, np.maximum(np.array(whole) - 8, 0))
    assert (num_cut > 0).sum() >= 2
    expected = plain(texts, truncation=True, max_length=8, padding=True, return_tensors="np")
    ids, mask = tokens.pad(np.arange(4))
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])
    assert tokens.pad(np.array([2]))[0].tolist() == [[plain.cls_token_id, plain.sep_token_id]]


def test_it_learns_from_the_words_alone(steady: str) -> None:
    config = make_config(steady, model__modalities="text", train__epochs=15, train__learning_rate=3e-3, model__dropout=0.0)
    data = make_data(config, size=120)
    assert run(config, data)[-1][0].metrics["best_val_macro_f1"] > 0.9


@pytest.mark.parametrize(("trainable_layers", "trained"), [(None, {"0", "1", ""}), (1, {"1"}), (0, set())])
def test_exactly_the_last_layers_change(checkpoint: str, trainable_layers: int | None, trained: set[str]) -> None:
    changes = {"model__trainable_layers": trainable_layers, "train__weight_decay": 0.0, "train__epochs": 1}
    config = make_config(checkpoint, **changes)
    data = make_data(config)
    before = {name: value.clone() for name, value in build_model(config, data).state_dict().items()}
    ((_, after),) = run(config, data)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    encoder = {name.removeprefix("trunk.text_encoder.") for name in changed if name.startswith("trunk.text_encoder.")}
    parts = {name.split(".")[2] if name.startswith("encoder.layer.") else "" for name in encoder}
    assert parts == trained
    if "1" in trained:
        layer = {name for name in before if "text_encoder.encoder.layer.1." in name}
        # The bias of the keys cancels in the softmax: its gradient is rounding noise, or nothing.
        assert {name for name in layer if "key.bias" not in name} <= changed
    assert {"trunk.project_audio.weight", "trunk.norm.weight", "urgency.weight", "sentiment.weight"} <= changed


def test_a_frozen_encoder_is_a_fixed_function_while_the_rest_trains(checkpoint: str) -> None:
    config = make_config(checkpoint, model__trainable_layers=0, model__modalities="text", model__dropout=0.0)
    data = make_data(config)
    model = build_model(config, data).train()
    batch = make_batch(data)
    assert torch.equal(model(batch)["urgency"], model(batch)["urgency"])
    whole = build_model(config.replace({"model.trainable_layers": None}), data).train()
    assert not torch.equal(whole(batch)["urgency"], whole(batch)["urgency"]), "the checkpoint's own dropout"


@pytest.mark.parametrize("trainable_layers", [None, 1])
def test_gradient_checkpointing_gives_the_same_gradients(checkpoint: str, trainable_layers: int | None) -> None:
    config = make_config(checkpoint, model__trainable_layers=trainable_layers)
    data = make_data(config)
    results = []
    for checkpointing in (False, True):
        model = build_model(config.replace({"model.gradient_checkpointing": checkpointing}), data).train()
        calls: list[int] = []
        assert isinstance(model.trunk, KoElectraCrossModal)
        attention = model.trunk.text_encoder.encoder.layer[1].attention
        attention.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(3)
        model(make_batch(data))["urgency"].logsumexp(-1).sum().backward()
        assert len(calls) == 1 + checkpointing, "the activations are computed again"
        assert model.trunk.text_encoder.embeddings.word_embeddings(torch.tensor([1])).requires_grad == (
            trainable_layers is None
        )
        results.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=0, atol=1e-6)


def test_bfloat16_is_the_arithmetic_and_not_the_weights(steady: str) -> None:
    config = make_config(steady, train__epochs=1, model__dropout=0.0)
    data = make_data(config)
    (exact,), (rounded,) = run(config, data), run(config.replace({"train.precision": "bfloat16"}), data)
    assert {value.dtype for value in rounded[1].values() if value.is_floating_point()} == {torch.float32}
    losses = [epoch.metrics["train_loss"] for epoch, _ in (exact, rounded)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], abs=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_auto_is_bfloat16_on_a_gpu(steady: str) -> None:
    config = make_config(steady, train__epochs=1, model__dropout=0.0, model__gradient_checkpointing=True)
    data = make_data(config)
    epochs: dict[str, Epoch] = {}
    for precision in ("auto", "bfloat16", "float32"):
        fields = {"train.precision": precision}
        fit(config.replace(fields), data, partial(epochs.__setitem__, precision), device=torch.device("cuda"))
    losses = {precision: epoch.metrics["train_loss"] for precision, epoch in epochs.items()}
    assert losses["auto"] == losses["bfloat16"] != losses["float32"]
    assert losses["auto"] == pytest.approx(losses["float32"], abs=0.02)


def test_a_resumed_run_ends_like_an_unbroken_one_with_dropout_on(checkpoint: str, tmp_path: Path) -> None:
    config = make_config(checkpoint, train__epochs=3, model__gradient_checkpointing=True, model__trainable_layers=1)
    data = make_data(config)
    whole = run(config, data)
    broken = run(config, data, stop_after=1)
    torch.save(broken[-1][0].state(), tmp_path / "state.pt")
    resumed = run(config, data, resume=torch.load(tmp_path / "state.pt", weights_only=True))
    assert [epoch.metrics["epoch"] for epoch, _ in resumed] == [2, 3]
    for name, value in whole[-1][1].items():
        torch.testing.assert_close(resumed[-1][1][name], value, rtol=0, atol=1e-7)
    timeless = [{k: v for k, v in e.metrics.items() if k != "seconds"} for e, _ in (whole[-1], resumed[-1])]
    assert timeless[0] == timeless[1]


def rounding_noise(name: Any, value: Any) -> Any:
    """The bias of the encoder's keys, which cancels in the softmax; query and key of the trunk: its softmax is over one key."""
    if name.startswith("trunk.attention.in_proj"):
        return slice(len(value) // 3 * 2)
    return slice(None) if "key.bias" in name else slice(0)


def test_two_workers_give_the_losses_scores_and_weights_of_one(steady: str, tmp_path: Path) -> None:
    changes = {"model__dropout": 0.0, "model__gradient_checkpointing": True, "train__select_by": "mean_of_tasks"}
    config = make_config(steady, train__batch_size=5, **changes)
    check_two_workers_are_one(config, make_data(config), tmp_path, rounding_noise)


def test_the_mean_of_tasks_picks_the_best_epoch_as_scikit_learn_scores_it(checkpoint: str) -> None:
    config = make_config(checkpoint, train__epochs=6, train__select_by="mean_of_tasks", train__early_stop_epochs=None)
    data = make_data(config)
    epochs = run(config, data)
    best = 0.0
    for epoch, weights in epochs:
        model = build_model(config, data)
        model.load_state_dict(weights)
        probs = predict_probabilities(model, data.audio, data.text, data.acoustic, data.tokens)
        scores = []
        for task, size, prefix in (("urgency", 3, "val_"), ("sentiment", 4, "val_sentiment_")):
            truth = getattr(data, task)[data.val]
            known = truth >= 0
            called = probs[task][data.val].argmax(1)[known]
            labels = list(range(size))
            scores.append(f1_score(truth[known], called, average="macro", labels=labels, zero_division=0))
            assert epoch.metrics[f"{prefix}macro_f1"] == pytest.approx(scores[-1])
            assert epoch.metrics[f"{prefix}accuracy"] == pytest.approx(accuracy_score(truth[known], called))
        assert epoch.metrics["val_score"] == pytest.approx(np.mean(scores))
        assert epoch.improved == (np.mean(scores) > best + 1e-9)
        best = max(best, np.mean(scores))
    picked = max(epochs, key=lambda pair: pair[0].metrics["val_score"])[0]
    assert epochs[-1][0].metrics["best_val_macro_f1"] == picked.metrics["val_macro_f1"]


@pytest.mark.parametrize("modalities", ["fused", "audio", "text"])
def test_a_saved_model_needs_no_checkpoint(checkpoint: str, tmp_path: Path, modalities: str) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "source")
    config = make_config(str(source), model__modalities=modalities, model__max_tokens=16)
    data = make_data(config)
    model = build_model(config, data).eval()
    model.save_pretrained(tmp_path / "model")
    shutil.rmtree(source)
    loaded = load_model(str(tmp_path / "model"))
    batch = make_batch(data)
    for task, logits in model(batch).items():
        torch.testing.assert_close(loaded(batch)[task], logits, rtol=0, atol=0)
    assert (loaded.tokenizer is None) == (modalities == "audio")
    if loaded.tokenizer is not None:
        long = pa.array(["".join(SENTENCES), *SENTENCES])
        (mine, my_cut), (theirs, their_cut) = (tokenize(m.tokenizer, long) for m in (model, loaded))
        np.testing.assert_array_equal(theirs.ids, mine.ids)
        assert their_cut.tolist() == my_cut.tolist() != [0] * 5
        # A folder saved from a loaded model is as whole as the first.
        loaded.save_pretrained(tmp_path / "again")
        assert {path.name for path in (tmp_path / "again").iterdir()} == {p.name for p in (tmp_path / "model").iterdir()}
    assert {path.suffix for path in (tmp_path / "model").iterdir()} <= {".json", ".safetensors", ".md"}


@pytest.mark.parametrize(
    ("modalities", "heard", "read"), [("fused", True, True), ("audio", True, False), ("text", False, True)]
)
def test_a_modality_that_is_left_out_has_no_say(checkpoint: str, modalities: str, heard: bool, read: bool) -> None:
    config = make_config(checkpoint, model__modalities=modalities)
    data = make_data(config)
    model = build_model(config, data).eval()
    batch = make_batch(data)
    base = model(batch)["urgency"]
    deaf = model(batch._replace(audio=-batch.audio))["urgency"]
    blind = model(batch._replace(token_ids=batch.token_ids.flip(0), token_mask=batch.token_mask.flip(0)))["urgency"]
    assert (not torch.equal(base, deaf), not torch.equal(base, blind)) == (heard, read)


def test_a_pooler_is_left_out(tmp_path: Path) -> None:
    config = make_config(save_text_checkpoint(tmp_path, "roberta"), model__max_tokens=512)
    data = make_data(config)
    assert data.tokens is not None and data.tokens.offsets[-1] == len(data.tokens.ids)
    assert load_tokenizer(config.model).model_max_length == 65, "66 positions, counted from the padding index + 1"
    model = build_model(config, data)
    assert not [name for name in model.state_dict() if "pooler" in name]
    model(make_batch(data))["urgency"].sum().backward()
    unused = {name for name, value in model.named_parameters() if value.grad is None}
    assert unused == {"sentiment.weight", "sentiment.bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "concat", "model.text_encoder": "x"}, "text_encoder x needs name cross_modal but got name concat"),
        ({"model.trainable_layers": 2}, "trainable_layers needs text_encoder"),
        ({"model.gradient_checkpointing": True}, "gradient_checkpointing needs text_encoder"),
        ({"train.select_by": "mean_of_tasks"}, r"train\.select_by mean_of_tasks needs loss\.sentiment_weight above 0"),
    ],
)
def test_fields_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Config().replace(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.num_heads": 5}, r"model\.num_heads: must divide 24, the width of .*, but got 5"),
        ({"model.trainable_layers": 3}, r"model\.trainable_layers: must be at most 2, .*, but got 3"),
        ({"model.text_encoder": "/nowhere"}, "text encoder /nowhere: cannot be loaded"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_refused(checkpoint: str, changes: dict[str, Any], message: str) -> None:
    config = make_config(checkpoint)
    data = make_data(config)
    with pytest.raises(RequestError, match=message):
        build_model(config.replace(changes), data)


def test_without_sentiments_in_val_the_mean_of_tasks_is_refused(checkpoint: str) -> None:
    config = make_config(checkpoint, train__select_by="mean_of_tasks")
    data = make_data(config)
    data.sentiment[data.val] = -1
    with pytest.raises(RequestError, match="no row of the val split has a sentiment"):
        run(config, data)


def test_the_tokenizer_of_a_plain_vocabulary_is_saved_whole(checkpoint: str, tmp_path: Path) -> None:
    # KoELECTRA's repository holds vocab.txt and no tokenizer.json.
    folder = shutil.copytree(checkpoint, tmp_path / "plain")
    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(words, key=words.get)) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "model_max_length": 512}))
    config = make_config(str(folder))
    texts = pa.array([*SENTENCES, "ABC 119 ?!", " ".join(SENTENCES) * 6])
    before, num_cut = tokenize(load_tokenizer(config.model), texts)
    assert num_cut[-1] > 0
    build_model(config, make_data(config)).save_pretrained(tmp_path / "model")
    after, _ = tokenize(load_model(str(tmp_path / "model")).tokenizer, texts)
    np.testing.assert_array_equal(after.ids, before.ids)
    np.testing.assert_array_equal(after.offsets, before.offsets)
