"""A key in a URI is refused wherever a location is given, and never printed or kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from urgency_ray import cli, storage
from urgency_ray.config import Config, load_config
from urgency_ray.errors import RequestError
from urgency_ray.secret import blot, refuse_secret

SECRET = "wJalrXUtnFEMI"
URI = f"s3://AKIA123:{SECRET}@bucket/calls"


@pytest.mark.parametrize(
    ("text", "blotted"),
    [
        (URI, "s3://***@bucket/calls"),
        (f"open {URI}: no, and gs://k:s@b", "open s3://***@bucket/calls: no, and gs://***@b"),
        (f"s3://AKIA123:{SECRET}/more@bucket/calls", "s3://***@bucket/calls"),
        (f"abfs://:{SECRET}@account/x", "abfs://***@account/x"),
    ],
)
def test_keys_are_blotted_out_of_a_text(text: str, blotted: str) -> None:
    assert blot(text) == blotted
    with pytest.raises(RequestError):
        refuse_secret(text, "x")


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b/c:d",
        "hdfs://name:9000/user/a@b",
        "abfs://container@account.dfs.core.windows.net/x",
        "gs://anonymous@bucket/x",
        "a:b@c",
        "/data/a:b@c",
        "user/model@main",
    ],
)
def test_other_signs_of_that_kind_pass(text: str) -> None:
    refuse_secret({"a": [text]}, "x")
    assert blot(text) == text


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["extract", "--run-dir", "r", "--data.root", URI], "data.root"),
        (["extract", "--run-dir", "r", "--data.manifest", URI], "data.manifest"),
        (["extract", "--run-dir", URI, "--data.root", "."], "--run-dir"),
        (["extract", "--run-dir", "r", "--data.root", ".", "--audio_encoder.name", URI], "audio_encoder.name"),
        (["extract", "--run-dir", "r", "--data.root", ".", "--transcriber.name", URI], "transcriber.name"),
        (["train", "--run-dir", "r", "--model.text_encoder", URI], "model.text_encoder"),
        (["train", "--run-dir", "r", "--train.epochs", URI], "train.epochs"),
        (["train", "--run-dir", "r", "--config", URI], "--config"),
        (["train", "--run-dir", "r", "--config", "c.yaml"], "c.yaml: data.root"),
        (["predict", "--model", URI, "--output", "o.csv", "--data.root", "."], "--model"),
        (["predict", "--model", "m", "--output", f"{URI}/o.csv", "--data.root", "."], "--output"),
        (["export", "--run-dir", "r", "--metadata", URI, "--embeddings", "e.npz"], "--metadata"),
    ],
)
def test_a_key_is_refused_where_it_is_given_and_kept_nowhere(
    arguments: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(json.dumps({"data": {"root": URI}}), encoding="utf-8")
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"error: {name}: ") or f": {name}: holds a key and its secret" in line
    assert "AWS_SECRET_ACCESS_KEY" in line
    assert SECRET not in said.err + said.out
    assert [path.name for path in tmp_path.rglob("*")] == ["c.yaml"]


def test_words_that_are_no_options_are_not_repeated_with_their_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["extract", "--run-dir", "r", URI]) == 2
    assert SECRET not in capsys.readouterr().err


def test_a_config_in_code_holds_none_either() -> None:
    with pytest.raises(RequestError, match=r"data\.root: holds a key and its secret"):
        Config().replace({"data.root": URI})
    with pytest.raises(RequestError, match=r"data\.root: holds a key and its secret"):
        load_config(None, {"data.root": URI})


@pytest.mark.parametrize("name", ["a.wav", "신고.wav", "a"])
def test_a_row_of_a_manifest_with_a_key_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RequestError) as caught:
        storage.open_location(URI)
    assert SECRET not in str(caught.value)
    manifest = tmp_path / "calls.jsonl"
    rows: list[Any] = [{"audio": f"{URI}/{name}", "text": "불", "urgency": "상"}]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["extract", "--run-dir", "r", "--data.manifest", "calls.jsonl"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --data.manifest: holds a key and its secret")
    assert SECRET not in line
    assert not Path("r").exists()
