"""Calls that come as recordings alone: extract, train and predict hear the same words, and no word of them is said aloud."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from call_files import put
from noted_calls import note_embedded
from shared_runs import Share
from tone_speller import LETTERS, random_text, speak, wav_of

from urgency_ray import UrgencyPipeline, cli
from urgency_ray.accounts import ExtractAccounts
from urgency_ray.calls.plan import plan_calls
from urgency_ray.commands.extract import extract
from urgency_ray.commands.predict import predict
from urgency_ray.commands.train import train
from urgency_ray.config import Config
from urgency_ray.embedding.transform import repeat_transform
from urgency_ray.encoders.arithmetic import best_arithmetic
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Transform
from urgency_ray.model import UrgencyClassifier
from urgency_ray.model.inference import predict_examples
from urgency_ray.model.load import load_model
from urgency_ray.prediction.prepare import adopt_transform
from urgency_ray.schema import URGENCY_LABELS
from urgency_ray.training.run import open_run

NUM_CALLS = 36
PROBABILITIES = ["prob_low", "prob_mid", "prob_high"]


def say(number: int) -> str:
    """What is said in a call; its first letter goes with the urgency. One is long, and heard in several windows."""
    return LETTERS[number % 3] + " " + random_text(np.random.default_rng(number), 40 if number == 5 else 6)


def spoil(text: str) -> str:
    """A label that has its first letter wrong."""
    return LETTERS[5] + text[1:]


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls with labels, every fourth of which has one letter wrong, and two of which no words."""
    root = tmp_path_factory.mktemp("spoken")
    for number in range(NUM_CALLS):
        text = spoil(say(number)) if number % 4 == 0 else say(number)
        turns = [] if number in (1, 2) else [{"text": f"{text} (웃음)", "speaker": 1, "startAt": 0, "endAt": 1000}]
        label = {"urgencyLevel": URGENCY_LABELS[number % 3], "utterances": turns}
        put(root / f"c{number:02d}.wav", wav_of(speak(say(number), seed=number)))
        put(root / f"c{number:02d}.json", json.dumps(label, ensure_ascii=False).encode())
    return root


@pytest.fixture(scope="session")
def settings(spoken: Path, speller: str) -> Config:
    fields = {
        "data.root": str(spoken),
        "transcriber.name": speller,
        "transcriber.use": "always",
        "transcriber.window_sec": 4.0,
        "transcriber.overlap_sec": 1.0,
        "text_encoder.hashing_dim": 64,
        "extract.rows_per_block": 8,
        "extract.num_transcribers": 1,
        "model.name": "linear",
        "train.epochs": 2,
        "train.ablation": False,
        "train.baselines": False,
    }
    return Config().replace(fields)


@pytest.fixture(scope="module")
def written(ray_session: None, settings: Config, share: Share) -> tuple[str, ExtractAccounts]:
    """(run folder, accounts) of the calls, all of them transcribed; read only."""
    return share("written", extract, lambda run_dir: extract(settings, run_dir))


@pytest.fixture(scope="module")
def learnt(written: tuple[str, ExtractAccounts], settings: Config, share: Share) -> str:
    """A run folder with a model that has read what was written down; read only."""
    config = settings.replace({"transcriber.name": None, "transcriber.use": "missing"})
    return share("learnt", train, lambda run_dir: train(config, run_dir), copy_of=written[0])[0]


@pytest.fixture
def recordings(spoken: Path, tmp_path: Path) -> Path:
    """The recordings alone."""
    for path in spoken.glob("*.wav"):
        put(tmp_path / "calls" / path.name, path.read_bytes())
    return tmp_path / "calls"


def read_rows(run_dir: str) -> Any:
    parts = [pd.read_parquet(path) for path in Path(run_dir).glob("embeddings/status=*")]
    return pd.concat(parts).set_index("call_id").sort_index()


def test_every_row_has_the_words_that_were_spoken_and_the_accounts_how_far_the_labels_are(
    written: tuple[str, ExtractAccounts],
) -> None:
    run_dir, accounts = written
    rows = read_rows(run_dir)
    assert {call: row["text"] for call, row in rows.iterrows()} == {f"c{n:02d}": say(n) for n in range(NUM_CALLS)}
    assert set(rows["text_source"]) == {"transcriber"}
    compared = [number for number in range(NUM_CALLS) if number not in (1, 2)]
    wrong = [number for number in compared if number % 4 == 0]
    letters = sum(len(say(number).replace(" ", "")) for number in compared)
    words = sum(len(say(number).split()) for number in compared)
    assert (accounts.rows_transcribed, accounts.calls_compared) == (NUM_CALLS, len(compared))
    assert accounts.character_error_rate == pytest.approx(len(wrong) / letters, abs=1e-6)
    assert accounts.word_error_rate == pytest.approx(len(wrong) / words, abs=1e-6)
    saved = json.loads(Path(run_dir, "extract.json").read_text(encoding="utf-8"))
    assert saved["fingerprint"]["transcriber"]["weights"].startswith("sha256:")
    assert saved["word_error_rate"] == accounts.word_error_rate
    assert not set(LETTERS) & set(json.dumps(saved, ensure_ascii=False))
    line = accounts.transcript_line()
    assert line is not None
    assert line.startswith("36 rows transcribed; against the labels of 34 calls, CER ")


def test_what_was_written_down_is_not_written_down_again(
    written: tuple[str, ExtractAccounts], settings: Config, spoken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = note_embedded(monkeypatch, "extract")
    os.utime(spoken / "c03.wav", (1, 1))
    assert extract(settings, written[0]).counts() == written[1].counts()
    assert embedded == []
    with pytest.raises(RequestError, match=r"transcriber\.language: ko there, en here"):
        extract(settings.replace({"transcriber.language": "en"}), written[0])
    with pytest.raises(RequestError, match=r"transcriber\.name: .* there, None here"):
        extract(settings.replace({"transcriber.use": "never"}), written[0])


def test_recordings_alone_get_what_the_model_said_of_them_with_their_labels(
    learnt: str, recordings: Path, ray_session: None, tmp_path: Path
) -> None:
    known = pd.read_parquet(f"{learnt}/predictions.parquet").set_index("call_id").sort_index()
    output = tmp_path / "new.parquet"
    # What was used in the training is the model's to say, not the command line's.
    config = Config().replace({"data.root": str(recordings), "extract.num_transcribers": 1})
    counts = predict(config, f"{learnt}/model", str(output))
    assert counts["calls_predicted"] == NUM_CALLS
    found = pd.read_parquet(output).set_index("call_id").sort_index()
    np.testing.assert_allclose(found[PROBABILITIES], known[PROBABILITIES], atol=1e-5)
    classify = UrgencyPipeline.from_pretrained(f"{learnt}/model")
    batch = classify([{"audio": recordings / f"c{number:02d}.wav"} for number in range(8)])
    for number, prediction in enumerate(batch):
        wanted = known.loc[f"c{number:02d}", PROBABILITIES]
        np.testing.assert_allclose(list(prediction.probabilities.values()), wanted, atol=1e-5)
    # Words that are given make no difference where the model reads what it hears.
    assert classify({"audio": recordings / "c00.wav", "text": "불이 났어요"}).probabilities == pytest.approx(
        batch[0].probabilities, abs=1e-5
    )


@pytest.mark.nightly
def test_a_killed_predict_goes_on_with_what_it_has_written_down(
    learnt: str, recordings: Path, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, output = Config().replace({"data.root": str(recordings), "extract.num_transcribers": 1}), tmp_path / "new.parquet"

    def kill(tables: Any, *_: Any) -> None:
        assert sum(map(len, tables)) == NUM_CALLS
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("urgency_ray.commands.predict.write_predictions", kill)
        with pytest.raises(KeyboardInterrupt):
            predict(config, f"{learnt}/model", str(output))
    embedded = note_embedded(monkeypatch, "predict")
    assert predict(config, f"{learnt}/model", str(output))["calls_predicted"] == NUM_CALLS
    assert embedded == []


def test_a_model_keeps_its_transcriber_and_takes_no_other(learnt: str, speller: str, tmp_path: Path) -> None:
    transform = json.loads(json.dumps(load_model(f"{learnt}/model").transform))
    config = repeat_transform(Config(), transform)
    assert (config.transcriber.name, config.transcriber.use, config.transcriber.window_sec) == (speller, "always", 4.0)
    with pytest.raises(RequestError, match=r"^--transcriber\.window_sec: 9\.0, but the model's embeddings were made with 4\.0"):
        repeat_transform(Config().replace({"transcriber.window_sec": 9.0}), transform)
    with pytest.raises(RequestError, match=r"^--transcriber\.use: never, but"):
        repeat_transform(Config().replace({"transcriber.use": "never"}), transform)
    moved = put(tmp_path / "moved" / "config.json").parent
    for path in Path(speller).iterdir():
        put(moved / path.name, path.read_bytes())
    assert repeat_transform(Config().replace({"transcriber.name": str(moved)}), transform).transcriber.name == str(moved)
    (moved / "vocab.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RequestError, match=r"transcriber\.weights: sha256:"):
        repeat_transform(Config().replace({"transcriber.name": str(moved)}), transform)
    # A model of audio alone does without, wherever that is.
    transform["transcriber"]["name"] = "/gone"
    assert not repeat_transform(Config(), transform, reads=False).transcriber.is_used
    with pytest.raises(
        RequestError, match=r"its transcriber was the folder /gone, which is not here; give --transcriber\.name"
    ):
        repeat_transform(Config(), transform)
    for part in (transform, transform["fingerprint"]):
        part["transcriber"]["use"] = "missing"
    assert not repeat_transform(Config().replace({"transcriber.use": "never"}), transform).transcriber.is_used


def test_the_card_and_the_report_name_it(learnt: str, speller: str) -> None:
    card = Path(learnt, "model", "README.md").read_text(encoding="utf-8")
    assert f"`{speller}`" in card
    assert cli.main(["report", "--run-dir", learnt]) == 0
    page = Path(learnt, "report.html").read_text(encoding="utf-8")
    assert "<th>transcriber</th>" in page
    assert "36 rows transcribed" in page


@pytest.fixture(scope="module")
def labelled(ray_session: None, settings: Config, share: Share) -> str:
    """A run folder of calls with words in their labels, the others rejected; read only."""
    config = settings.replace({"transcriber.use": "never"})
    run_dir, accounts = share("labelled", extract, lambda run_dir: extract(config, run_dir))
    assert accounts.rejected_by_reason == {"no_text": 2}
    assert (accounts.rows_transcribed, accounts.character_error_rate) == (0, None)
    assert set(read_rows(run_dir)["text_source"].dropna()) == {"label"}
    assert "transcriber" not in json.loads(Path(run_dir, "extract.json").read_text(encoding="utf-8"))["fingerprint"]
    return run_dir


def save_random(run_dir: str, folder: Path, modalities: str) -> tuple[str, pd.DataFrame]:
    """A model of a run's embeddings with random weights, and what it says of them, by call."""
    fields = {"model.name": "linear", "model.modalities": modalities, "text_encoder.hashing_dim": 64}
    config, examples, _ = open_run(Config().replace(fields), run_dir)
    transform = Transform.of(config, examples.fingerprint).model_dump()
    torch.manual_seed(0)
    model = UrgencyClassifier(config.model, examples.audio.shape[1], examples.text.shape[1], False, transform)
    model.save_pretrained(folder)
    said = predict_examples(model.eval(), examples)["urgency"]
    return str(folder), pd.DataFrame(said, list(examples.keys["call_id"]), PROBABILITIES)


def test_a_model_of_labels_rejects_recordings_alone_and_reads_them_by_a_transcriber_that_it_is_given(
    labelled: str, recordings: Path, speller: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config().replace({"data.root": str(recordings), "extract.num_transcribers": 1})
    model, known = save_random(labelled, tmp_path / "model", "fused")
    planned = plan_calls(adopt_transform(load_model(model), config).reading)
    assert planned["reason"].to_pylist() == ["missing_label"] * NUM_CALLS
    output = tmp_path / "new.parquet"
    with caplog.at_level(logging.INFO):
        counts = predict(config.replace({"transcriber.name": speller}), model, str(output))
    assert not any(word in caplog.text for number in range(NUM_CALLS) for word in say(number).split() if len(word) > 1)
    assert counts["calls_predicted"] == NUM_CALLS
    assert "the model was trained on words of labels, and reads here what" in caplog.text
    found = pd.read_parquet(output).set_index("call_id").loc[known.index]
    right = [call for call in known.index if int(call[1:]) % 4]
    np.testing.assert_allclose(found.loc[right, PROBABILITIES], known.loc[right, PROBABILITIES], atol=1e-5)
    classify = UrgencyPipeline.from_pretrained(model, **{"transcriber.name": speller})
    heard = classify({"audio": recordings / "c01.wav"})
    given = UrgencyPipeline.from_pretrained(model)({"audio": recordings / "c01.wav", "text": say(1)})
    assert heard.probabilities == pytest.approx(given.probabilities, abs=1e-5)


def test_a_recipe_may_leave_the_transcriber_out_and_may_not_name_another(
    written: tuple[str, ExtractAccounts], labelled: str, settings: Config
) -> None:
    bare = settings.replace({"transcriber.name": None, "transcriber.use": "missing"})
    taken = open_run(bare, written[0])[0].transcriber
    assert taken.dtype == best_arithmetic("cpu").dtype
    assert taken.model_copy(update={"dtype": "auto"}) == settings.transcriber
    with pytest.raises(RequestError, match=r"were made with transcriber\.name .*, not other"):
        open_run(settings.replace({"transcriber.name": "other"}), written[0])
    with pytest.raises(RequestError, match=r"were made with transcriber\.name None, not .*; say --transcriber\.name null"):
        open_run(settings, labelled)


def test_a_model_of_audio_alone_needs_recordings_alone(labelled: str, recordings: Path, tmp_path: Path) -> None:
    model, known = save_random(labelled, tmp_path / "model", "audio")
    output = tmp_path / "new.parquet"
    put(recordings / "c00.json", b'{"urgencyLevel": null}')
    counts = predict(Config().replace({"data.root": str(recordings)}), model, str(output))
    assert counts["calls_predicted"] == NUM_CALLS
    found = pd.read_parquet(output).set_index("call_id").loc[known.index]
    np.testing.assert_allclose(found[PROBABILITIES], known[PROBABILITIES], atol=1e-5)


def test_a_name_that_stands_for_nothing_is_one_line_before_the_work(
    settings: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (str(tmp_path / "nowhere"), "nobody/no-such-model"):
        config = put(tmp_path / "c.yaml", yaml.safe_dump({"transcriber": {"name": name}}).encode())
        options = ["--config", str(config), "--data.root", str(settings.data.root), "--run-dir", str(tmp_path / "run")]
        assert cli.main(["extract", *options]) == 2
        assert f"transcriber {name}: cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
