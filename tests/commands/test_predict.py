import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from noted_calls import note_embedded
from shared_runs import KnownCorpus, Trained

from urgency_ray.commands.predict import predict
from urgency_ray.config import Config
from urgency_ray.embedding.transform import repeat_transform
from urgency_ray.errors import RequestError
from urgency_ray.model.load import load_model
from urgency_ray.prediction.by_row import OUTPUT_SCHEMA


@pytest.fixture(scope="module")
def unlabelled(corpus: KnownCorpus, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The corpus's Validation part, unpacked, without urgency labels, and one broken call."""
    folder = tmp_path_factory.mktemp("unlabelled")
    for path in corpus[0].rglob("V*.zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    for path in folder.glob("*.json"):
        label = json.loads(path.read_text(encoding="utf-8-sig"))
        del label["urgencyLevel"]
        path.write_text(json.dumps(label, ensure_ascii=False), encoding="utf-8")
    broken = sorted(folder.glob("*.wav"))[0]
    broken.write_bytes(b"<html>not found</html>")
    return folder, broken.stem


def test_new_calls_get_the_probabilities_of_the_run_s_own_transform(
    ray_session: None, trained: Trained, unlabelled: Any, tmp_path: Path
) -> None:
    run_dir, _, _ = trained
    folder, broken = unlabelled
    output = tmp_path / "out" / "new.parquet"
    # Defaults on purpose: the transform is the model's, not the command line's.
    counts = predict(Config().replace({"data.root": str(folder)}), f"{run_dir}/model", str(output))
    frame = pd.read_parquet(output).set_index("call_id")
    assert list(frame.reset_index().columns) == sorted(
        OUTPUT_SCHEMA.names, key=lambda n: (n != "call_id", OUTPUT_SCHEMA.names.index(n))
    )
    assert counts["calls_read"] == len(frame) == 20
    assert (counts["calls_predicted"], counts["calls_rejected"]) == (19, 1)
    known = pd.read_parquet(f"{run_dir}/predictions.parquet").set_index("call_id").loc[frame.index.drop(broken)]
    for name in ("prob_low", "prob_mid", "prob_high"):
        np.testing.assert_allclose(frame[name].drop(broken), known[name], atol=1e-5)
    assert frame["urgency"].isna().all()
    assert frame.loc[broken, "reason"] == "not_audio"
    assert frame.loc[broken, ["urgency_pred", "prob_low"]].isna().all()


def test_csv_says_the_same(ray_session: None, trained: Trained, unlabelled: Any, tmp_path: Path) -> None:
    counts = predict(Config().replace({"data.root": str(unlabelled[0])}), f"{trained[0]}/model", str(tmp_path / "new.csv"))
    frame = pd.read_csv(tmp_path / "new.csv")
    assert len(frame) == counts["calls_read"]
    assert frame["reason"].notna().sum() == counts["rows_rejected"]


@pytest.mark.slow
def test_a_killed_predict_goes_on_with_the_calls_that_it_has_embedded(
    ray_session: None, trained: Trained, unlabelled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config().replace({"data.root": str(unlabelled[0]), "extract.rows_per_block": 4})
    output, kept = tmp_path / "new.parquet", tmp_path / "new.parquet.unfinished"
    counts, whole = predict(config, f"{trained[0]}/model", str(output)), pd.read_parquet(output).sort_values("call_id")
    assert [path.name for path in tmp_path.iterdir()] == ["new.parquet"]
    output.unlink()

    def kill(tables: Any, *_: Any) -> None:
        assert sum(map(len, tables)) == 20
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("urgency_ray.commands.predict.write_predictions", kill)
        with pytest.raises(KeyboardInterrupt):
            predict(config, f"{trained[0]}/model", str(output))
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    lost = sorted(kept.iterdir())[0]
    lost_calls = pq.read_table(lost)["call_id"].to_pylist()
    lost.write_bytes(lost.read_bytes()[:100])
    planned = note_embedded(monkeypatch, "predict")
    assert predict(config, f"{trained[0]}/model", str(output)) == counts
    assert [sorted(calls) for calls in planned] == [sorted(lost_calls)]
    assert [path.name for path in tmp_path.iterdir()] == ["new.parquet"]
    again = pd.read_parquet(output).sort_values("call_id")
    pd.testing.assert_frame_equal(again.reset_index(drop=True), whole.reset_index(drop=True))


def test_bad_requests_are_one_line(trained: Trained, tmp_path: Path) -> None:
    config = Config().replace({"data.root": str(tmp_path)})
    with pytest.raises(RequestError, match=r"--output x\.json: must end in"):
        predict(config, f"{trained[0]}/model", "x.json")
    with pytest.raises(RequestError, match=r"holds no model\.safetensors"):
        predict(config, str(tmp_path), "x.parquet")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(RequestError, match=r"--output .*folder\.csv: is a folder"):
        predict(config, f"{trained[0]}/model", str(tmp_path / "folder.csv"))


def test_a_model_folder_names_no_place_of_the_training_machine(trained: Trained) -> None:
    run_dir, _, config = trained
    files = [path for path in Path(run_dir, "model").iterdir() if path.suffix in (".json", ".md")]
    assert {path.name for path in files} >= {"config.json", "README.md"}
    assert config.data.root is not None
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert config.data.root not in text
        assert run_dir not in text


@pytest.mark.parametrize(("made_with", "repeated_with"), [("bfloat16", "auto"), ("int8", "int8"), ("float32", "float32")])
def test_the_arithmetic_is_repeated_where_every_machine_can(trained: Trained, made_with: str, repeated_with: str) -> None:
    transform = json.loads(json.dumps(load_model(f"{trained[0]}/model").transform))
    for part in (transform, transform["fingerprint"]):
        part["audio_encoder"]["dtype"] = made_with
    assert repeat_transform(Config(), transform).audio_encoder.dtype == repeated_with


def test_what_would_be_another_transform_is_refused_and_what_is_the_machines_stands(trained: Trained) -> None:
    transform = load_model(f"{trained[0]}/model").transform
    with pytest.raises(RequestError, match=r"^--data\.max_call_sec: 60\.0, but the model's embeddings were made with 7200\.0"):
        repeat_transform(Config().replace({"data.max_call_sec": 60.0}), transform)
    with pytest.raises(RequestError, match=r"^--text_encoder\.max_tokens: 16, but"):
        repeat_transform(Config().replace({"text_encoder.max_tokens": 16}), transform)
    smaller = repeat_transform(Config().replace({"audio_encoder.batch_size": 2, "data.root": "calls"}), transform)
    assert (smaller.audio_encoder.batch_size, smaller.data.root) == (2, "calls")


def test_a_transform_that_cannot_be_repeated_is_refused(trained: Trained, tmp_path: Path) -> None:
    transform = load_model(f"{trained[0]}/model").transform
    with pytest.raises(RequestError, match="trained on imported embeddings"):
        repeat_transform(Config(), transform | {"fingerprint": None})
    other = json.loads(json.dumps(transform))
    other["fingerprint"]["text_encoder"]["weights"] = "sha256:other"
    with pytest.raises(RequestError, match=r"text_encoder\.weights: sha256:other there, built-in here"):
        repeat_transform(Config(), other)
    assert not repeat_transform(Config(), transform).data.require_urgency
    shutil.rmtree(tmp_path)
