"""Calls that a manifest lists are extracted and classified as those of a folder are."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as pads
import pytest
from shared_runs import Extracted, KnownCorpus, Trained

from urgency_ray import cli
from urgency_ray.commands.extract import extract
from urgency_ray.commands.predict import predict
from urgency_ray.config import Config
from urgency_ray.errors import RequestError

SAME = ["call_id", "text", "urgency", "sentiment", "disaster_medium", "provider_split", "duration_sec", "audio_sha256"]


@pytest.fixture(scope="module")
def calls(corpus: KnownCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus's Validation part, unpacked, and `calls.jsonl`: labels in files, and in the rows themselves."""
    folder = tmp_path_factory.mktemp("listed")
    for path in corpus[0].rglob("V*.zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder / "files")
    rows = []
    for number, path in enumerate(sorted((folder / "files").glob("*.wav"))):
        label = path.with_suffix(".json")
        row: dict[str, Any] = {"audio_filepath": f"files/{path.name}", "split": "validation"}
        if number % 2:
            row |= {"label": f"files/{label.name}"}
        else:
            said = json.loads(label.read_text(encoding="utf-8-sig"))
            keys = {"urgency": "urgencyLevel", "disaster_large": "disasterLarge", "disaster_medium": "disasterMedium"}
            row |= {"utterances": said["utterances"], "sentiment": said["sentiment"]}
            row |= {name: said[key] for name, key in keys.items()}
        rows.append(row)
    rows += [rows[0], {"audio_filepath": "files/gone.wav", "text": "네", "urgency": "하"}, {"text": "네"}]
    (folder / "calls.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return folder


def read(run_dir: Any, status: str) -> Any:
    rows = pads.dataset(f"{run_dir}/embeddings/status={status}").to_table().to_pandas()
    return rows.sort_values("call_id", ignore_index=True)


def test_listed_calls_are_embedded_as_those_of_the_folder_and_every_row_is_accounted_for(
    ray_session: None, extracted: Extracted, calls: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = str(tmp_path / "run")
    config = extracted[2].replace({"data.root": None, "data.manifest": str(calls / "calls.jsonl")})
    with caplog.at_level("INFO", logger="urgency_ray"):
        accounts = extract(config, run_dir)
    assert "23 rows of the manifest, each a call" in caplog.messages
    assert (accounts.calls_read, accounts.calls_embedded, accounts.files) == (23, 20, None)
    assert accounts.rejected_by_reason == {"invalid_row": 1, "duplicate_id": 1, "missing_audio": 1}
    ours, all_known = read(run_dir, "embedded"), read(extracted[0], "embedded")
    known = all_known[all_known["call_id"].isin(ours["call_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours[SAME], known[SAME])
    for name in ("audio_embedding", "text_embedding"):
        np.testing.assert_allclose(np.stack(ours[name]), np.stack(known[name]), atol=1e-6)
    # The same command again: from the file, a run folder that is finished.
    assert extract(config, run_dir) == accounts
    elsewhere = shutil.copytree(calls, tmp_path / "calls")
    said = (elsewhere / "calls.jsonl").read_text(encoding="utf-8")
    (elsewhere / "calls.jsonl").write_text(said.split("\n", 5)[5], encoding="utf-8")
    with pytest.raises(RequestError, match=r"holds embeddings of 20 calls, \d of which are there no more"):
        extract(config.replace({"data.manifest": str(elsewhere / "calls.jsonl")}), run_dir)


def test_predict_takes_a_manifest_without_labels(ray_session: None, trained: Trained, calls: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (calls / "calls.jsonl").read_text(encoding="utf-8").splitlines()]
    table = pd.DataFrame([{"path": row["audio_filepath"], "said": row["utterances"]} for row in rows[:20:2]])
    table["said"] = [" ".join(turn["text"] for turn in turns) for turns in table["said"]]
    table.to_csv(calls / "new.csv", index=False)
    config = Config().replace({"data.manifest": str(calls / "new.csv"), "data.manifest_columns": {"text": "said"}})
    counts = predict(config, f"{trained[0]}/model", str(tmp_path / "new.parquet"))
    assert (counts["calls_read"], counts["calls_predicted"]) == (10, 10)
    frame = pd.read_parquet(tmp_path / "new.parquet").set_index("call_id")
    known = pd.read_parquet(f"{trained[0]}/predictions.parquet").set_index("call_id").loc[frame.index]
    np.testing.assert_allclose(frame["prob_high"], known["prob_high"], atol=1e-5)


@pytest.mark.parametrize("command", [["extract", "--run-dir", "run"], ["predict", "--model", "model", "--output", "o.csv"]])
def test_one_of_root_and_manifest_is_given(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command, "--data.root", "calls", "--data.manifest", "calls.csv"]) == 2
    assert capsys.readouterr().err == (
        "error: command line: data: root and manifest both say which calls there are: give one of them\n"
    )


def test_a_run_folder_keeps_the_manifest_until_other_calls_are_named(tmp_path: Path) -> None:
    columns = {"text": "said"}
    config = Config().replace({"data.manifest": "calls.csv", "data.manifest_columns": columns})
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train: {epochs: 3}\n", encoding="utf-8")

    def resolved(*options: Any) -> Any:
        return cli.resolve_config(cli.build_parser().parse_args(["extract", "--run-dir", str(tmp_path), *options])).data

    for options in ([], ["--config", str(recipe)]):
        assert (resolved(*options).manifest, resolved(*options).manifest_columns) == ("calls.csv", columns)
    for options in (["--data.root", "calls"], ["--config", str(recipe), "--data.root", "calls"]):
        assert (resolved(*options).root, resolved(*options).manifest) == ("calls", None)
    assert resolved("--data.manifest_columns", "{text: words}").manifest_columns == {"text": "words"}
