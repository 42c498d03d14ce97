import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from accounts import make_accounts
from shared_runs import Extracted, KnownCorpus

from urgency_ray import cli
from urgency_ray.commands.evaluate import evaluate_run
from urgency_ray.commands.extract import extract
from urgency_ray.commands.interchange import export_artefacts, import_artefacts
from urgency_ray.commands.train import train
from urgency_ray.config import Config, load_config
from urgency_ray.embedding.transform import repeat_transform
from urgency_ray.errors import Reason, RequestError
from urgency_ray.examples.dataset import load_examples
from urgency_ray.examples.groups import group_examples
from urgency_ray.model.load import load_model
from urgency_ray.schema import ACOUSTIC_FEATURES, embedding_schema
from urgency_ray.training.run import open_run

# Words that CSV readers take for something else, or break a row at.
HARD_TEXTS = [
    "null",
    "NA",
    "nan",
    "  불 \r났어요",
    'a "b", c\n\n',
    "=1+1",
    "1e5",
    "\ufeff연기",
    "\\",
    "'",
    "x\u2028y",
    "#",
    "불이야\r\n",
]
LEVELS = ("하", "중", "상")


def read_rows(run_dir: Any) -> Any:
    dataset = pads.dataset(f"{run_dir}/embeddings", partitioning="hive")
    return dataset.to_table(columns=embedding_schema(1, 1).names).sort_by("example_id")


def embedded_rows(run_dir: Any) -> Any:
    table = read_rows(run_dir)
    return table.filter(pa.compute.equal(table["status"], "embedded")).replace_schema_metadata()


def assert_same_rows(first: Any, second: Any) -> None:
    """Equal in every column, and bit for bit in the embeddings."""
    assert first.schema.equals(second.schema)
    for name in first.schema.names:
        assert first[name].to_pylist() == second[name].to_pylist(), name


def round_trip(config: Any, run_dir: Any, folder: Any, embeddings: Any, back: Any = None) -> Any:
    files = str(folder / "metadata.csv"), str(folder / embeddings)
    export_artefacts(config, run_dir, *files)
    imported = str(folder / "back")
    import_artefacts(back or config, *files, imported)
    return imported


def write_sense(folder: Path, frame: pd.DataFrame, audio: Any = None, text: Any = None, **options: Any) -> tuple[str, str]:
    """A pair as a student would write it."""
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(len(frame), 6)).astype(np.float32) if audio is None else audio
    text = rng.normal(size=(len(frame), 4)).astype(np.float32) if text is None else text
    frame.to_csv(folder / "metadata.csv", index=False, **options)
    np.savez(folder / "embeddings.npz", audio=audio, text=text)
    return str(folder / "metadata.csv"), str(folder / "embeddings.npz")


def make_sense(size: int) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "file_id": [f"call_{i:03d}" for i in range(size)],
            "text": [HARD_TEXTS[i % 3] + f" {i}번 신고" for i in range(size)],
            "urgency_y": rng.integers(0, 3, size),
        }
    )


def make_detect() -> pd.DataFrame:
    """Five utterances of two calls, not side by side; urgency_label in the order of appearance, as it should not be used."""
    return pd.DataFrame(
        {
            "_id": ["a", "b", "a", "a", "b"],
            "wav_file_path": ["/data/a_1.wav", "/data/b_1.wav", "/data/a_1.wav", "/data/a_1.wav", "/data/b_1.wav"],
            "utterance_id": ["u1", "u1", "u2", "u2", "u3"],
            "text": ["불이 났어요", "네 119입니다", "***[개인정보] 살려 주세요", "NA", "배가 아파요"],
            "startAt": [0, 500, 1500, 4000, 2500],
            "endAt": [1500, 2500, 4000, 4800, 5500],
            "sentiment": ["불안/걱정", "중립", "불안/걱정", "불안/걱정", "중립"],
            "urgencyLevel": ["상", "하", "상", "상", "하"],
            "urgency_label": [0, 1, 0, 0, 1],
            "disasterMedium": ["일반화재", "질병", "일반화재", "일반화재", "질병"],
        }
    )


def write_detect(folder: Path, frame: pd.DataFrame, audio: Any = None) -> tuple[str, str]:
    audio = np.random.default_rng(2).normal(size=(len(frame), 5)).astype(np.float32) if audio is None else audio
    frame.to_csv(folder / "processed_data.csv", index=False, encoding="utf-8-sig")
    np.save(folder / "wav2vec2_embeddings.npy", audio)
    return str(folder / "processed_data.csv"), str(folder / "wav2vec2_embeddings.npy")


@pytest.fixture
def utterance_run(tmp_path: Path) -> Any:
    """A run folder of utterance rows with gaps in ids and fields, and texts that a CSV can lose."""
    config = Config().replace({"data.unit": "utterance", "data.require_urgency": False, "text_encoder.hashing_dim": 32})
    run_dir = tmp_path / "run"
    rng = np.random.default_rng(3)
    rows = []
    for index, text in enumerate(HARD_TEXTS):
        known = index % 4 != 3
        rows.append(
            {
                "example_id": f"call {index // 3}/{2 * index:04d}",
                "call_id": f"call {index // 3}",
                "utterance_id": f"00{index}",
                "provider_split": ("training", "validation", "unknown")[index % 3],
                "start_ms": 1000 * index,
                "end_ms": 1000 * index + 777,
                "speaker": index % 2 if known else None,
                "text": text,
                "urgency": index % 3 if known else None,
                "sentiment": "불안/걱정" if known else None,
                "disaster_medium": '기타, "등"' if known else None,
                "region": "NA",
                "audio_sha256": f"{index:064x}" if known else None,
                **{name: float(np.float32(rng.lognormal(sigma=8))) if known else None for name in ACOUSTIC_FEATURES},
                "num_windows": index,
                "audio_embedding": (rng.normal(size=7) * 10.0 ** rng.integers(-30, 30)).astype(np.float32),
                "text_embedding": rng.normal(size=5).astype(np.float32),
                "status": "embedded",
            }
        )
    table = pa.Table.from_pylist(rows, schema=embedding_schema(7, 5))
    folder = run_dir / "embeddings" / "status=embedded"
    folder.mkdir(parents=True)
    pq.write_table(table.drop_columns(["status"]), folder / "part-0.parquet")
    (run_dir / "extract.json").write_text(make_accounts(len(rows)).model_dump_json(), encoding="utf-8")
    return str(run_dir), config


def test_an_extracted_run_survives_urgency_sense_s_pair(extracted: Extracted, tmp_path: Path) -> None:
    run_dir, _, config = extracted
    back = round_trip(config, run_dir, tmp_path, "embeddings.npz")
    assert_same_rows(embedded_rows(run_dir), embedded_rows(back))
    there, here = load_examples(run_dir), load_examples(back)
    for name in ("audio", "text", "acoustic", "urgency", "sentiment"):
        assert getattr(there, name).tobytes() == getattr(here, name).tobytes()
    pd.testing.assert_frame_equal(there.keys, here.keys)
    assert here.fingerprint is None


def test_the_files_of_an_export_are_what_the_published_code_reads(extracted: Extracted, tmp_path: Path) -> None:
    run_dir, summary, config = extracted
    num_rows = export_artefacts(config, run_dir, str(tmp_path / "m" / "metadata.csv"), str(tmp_path / "e" / "embeddings.npz"))
    frame = pd.read_csv(tmp_path / "m" / "metadata.csv")
    assert num_rows == summary.rows_embedded == len(frame)
    assert frame["file_id"].is_monotonic_increasing
    assert set(frame["urgency_y"]) == {0, 1, 2}
    with np.load(tmp_path / "e" / "embeddings.npz") as arrays:
        assert arrays["audio"].dtype == arrays["text"].dtype == np.float32
        assert len(arrays["audio"]) == len(arrays["text"]) == len(frame)
        assert arrays["text"].shape[1] == config.text_encoder.hashing_dim


def test_hard_rows_survive_urgency_sense_s_pair(utterance_run: Any, tmp_path: Path) -> None:
    run_dir, config = utterance_run
    assert_same_rows(embedded_rows(run_dir), embedded_rows(round_trip(config, run_dir, tmp_path, "e.npz")))


def test_hard_rows_survive_urgency_detect_s_pair_all_but_the_text_embedding(utterance_run: Any, tmp_path: Path) -> None:
    run_dir, config = utterance_run
    back = round_trip(config, run_dir, tmp_path, "e.npy")
    made_anew = ["text", "text_embedding", "num_tokens", "num_tokens_dropped", "num_text_windows"]
    first, second = embedded_rows(run_dir), embedded_rows(back)
    assert_same_rows(first.drop_columns(made_anew), second.drop_columns(made_anew))
    assert [" ".join(text.split()) for text in first["text"].to_pylist()] == second["text"].to_pylist()
    # Once the run's own encoder has made the text embeddings, all of it survives.
    (tmp_path / "again").mkdir()
    assert_same_rows(second, embedded_rows(round_trip(config, back, tmp_path / "again", "e.npy")))
    frame = pd.read_csv(tmp_path / "metadata.csv")
    assert frame["wav_file_path"].tolist() == [f"{call_id}.wav" for call_id in frame["_id"]]
    known = frame.dropna(subset="urgencyLevel")
    assert [LEVELS[int(label)] for label in known["urgency_label"]] == known["urgencyLevel"].tolist()


def test_a_hand_made_pair_of_urgency_sense(tmp_path: Path) -> None:
    frame = make_sense(40)
    audio = np.random.default_rng(4).normal(size=(40, 12))
    text = np.asfortranarray(np.random.default_rng(5).normal(size=(40, 9)).astype(">f4"))
    files = write_sense(tmp_path, frame, audio, text, encoding="utf-8-sig")
    summary = import_artefacts(Config(), *files, str(tmp_path / "run"))
    examples = load_examples(str(tmp_path / "run"))
    assert examples.keys["example_id"].tolist() == examples.keys["call_id"].tolist() == frame["file_id"].tolist()
    assert set(examples.keys["provider_split"]) == {"unknown"}
    assert len(set(group_examples(examples.keys))) == 40
    np.testing.assert_array_equal(examples.audio, audio.astype(np.float32))
    np.testing.assert_array_equal(examples.text, text)
    assert np.isnan(examples.acoustic).all()
    assert examples.urgency.tolist() == frame["urgency_y"].tolist()
    assert embedded_rows(tmp_path / "run")["text"].to_pylist() == frame["text"].tolist()
    assert summary.calls_read == summary.calls_embedded == summary.rows_embedded == 40


def test_an_imported_run_is_laid_out_as_an_extracted_one(extracted: Extracted, tmp_path: Path) -> None:
    frame = make_sense(20)
    frame.loc[3, "text"] = "***"
    files = write_sense(tmp_path, frame)
    summary = import_artefacts(Config(), *files, str(tmp_path / "run"))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "embeddings", "extract.json"}
    assert {path.name for path in (tmp_path / "run" / "embeddings").iterdir()} == {"status=embedded", "status=rejected"}
    assert list(summary.model_dump()) == list(extracted[1].model_dump())
    assert json.loads((tmp_path / "run" / "extract.json").read_text(encoding="utf-8")) == summary.model_dump()
    assert load_config(tmp_path / "run" / "config.yaml") == Config()
    schemas = [pq.read_schema(next(Path(run).rglob("*.parquet"))) for run in (extracted[0], tmp_path / "run")]
    assert schemas[0].names == schemas[1].names
    again = import_artefacts(Config(), *files, str(tmp_path / "again"))
    assert again.manifest_sha256 == summary.manifest_sha256


def test_rows_that_cannot_be_used_are_rejects_with_their_reason(tmp_path: Path) -> None:
    frame = make_sense(12).astype({"urgency_y": object})
    frame["call_id"] = [f"c{i // 2}" for i in range(12)]
    frame["provider_split"] = "training"
    frame.loc[0, "text"] = " "
    frame.loc[1, "urgency_y"] = 3
    frame.loc[2, "urgency_y"] = None
    frame.loc[3, "urgency_y"] = "높음"
    frame.loc[[5, 6], "file_id"] = frame.loc[4, "file_id"]
    frame.loc[8, "provider_split"] = "dev"
    frame.loc[9, "file_id"] = ""
    audio, text = np.zeros((12, 3)), np.zeros((12, 3))
    audio[10, 2], text[11, 0] = 1e39, np.nan
    summary = import_artefacts(Config(), *write_sense(tmp_path, frame, audio, text), str(tmp_path / "run"))
    expected = {
        "call_000": Reason.NO_TEXT,
        "call_001": Reason.UNKNOWN_URGENCY,
        "call_002": Reason.MISSING_URGENCY,
        "call_003": Reason.UNKNOWN_URGENCY,
        "call_004#2": Reason.DUPLICATE_STEM,
        "call_004#3": Reason.DUPLICATE_STEM,
        "call_008": Reason.INVALID_LABEL,
        "": Reason.INVALID_LABEL,
        "call_010": Reason.INVALID_EMBEDDING,
        "call_011": Reason.INVALID_EMBEDDING,
    }
    rows = read_rows(tmp_path / "run").to_pandas().set_index("example_id")
    assert rows["reason"].dropna().to_dict() == expected
    assert rows.index[rows["status"] == "embedded"].tolist() == ["call_004", "call_007"]
    assert rows.loc[list(expected), "detail"].notna().all()
    # c2 and c3 have a row each that is embedded.
    assert (summary.calls_read, summary.calls_embedded, summary.calls_rejected) == (6, 2, 4)
    assert summary.rows_rejected_by_reason == dict(Counter(expected.values()))


def test_unlabelled_rows_are_kept_where_the_config_welcomes_them(tmp_path: Path) -> None:
    frame = make_sense(6).astype({"urgency_y": float})
    frame.loc[2, "urgency_y"] = None
    files = write_sense(tmp_path, frame)  # urgency_y is "2.0" or empty now
    config = Config().replace({"data.require_urgency": False})
    import_artefacts(config, *files, str(tmp_path / "run"))
    assert load_examples(str(tmp_path / "run")).urgency.tolist() == frame["urgency_y"].fillna(-1).tolist()


def test_numbers_that_repeat_ids_are_given_never_meet_ids_that_are_there(tmp_path: Path) -> None:
    frame = make_sense(4)
    frame["file_id"] = ["x", "x", "x#2", "x#2"]
    import_artefacts(Config(), *write_sense(tmp_path, frame), str(tmp_path / "run"))
    rows = read_rows(tmp_path / "run").to_pandas()
    assert rows["example_id"].tolist() == ["x", "x#2", "x#2#2", "x#3"]
    assert rows["status"].tolist() == ["embedded", "embedded", "rejected", "rejected"]


def test_a_hand_made_pair_of_urgency_detect(tmp_path: Path) -> None:
    audio = np.random.default_rng(6).normal(size=(5, 8)).astype(np.float16)
    config = Config().replace({"text_encoder.hashing_dim": 64})
    files = write_detect(tmp_path, make_detect(), audio)
    summary = import_artefacts(config, *files, str(tmp_path / "run"))
    rows = embedded_rows(tmp_path / "run").to_pandas()
    assert rows["example_id"].tolist() == ["a/0000", "a/0001", "a/0002", "b/0000", "b/0001"]
    assert rows["urgency"].tolist() == [2, 2, 2, 0, 0]
    assert rows["start_ms"].tolist() == [0, 1500, 4000, 500, 2500]
    assert rows["text"].tolist() == ["불이 났어요", "살려 주세요", "NA", "네 119입니다", "배가 아파요"]
    assert rows["disaster_medium"].tolist() == ["일반화재"] * 3 + ["질병"] * 2
    examples = load_examples(str(tmp_path / "run"))
    np.testing.assert_array_equal(examples.audio, audio[[0, 2, 3, 1, 4]].astype(np.float32))
    assert examples.text.shape == (5, 64)
    assert (examples.sentiment >= 0).all()
    assert (summary.calls_read, summary.calls_embedded, summary.rows_embedded) == (2, 2, 5)
    assert summary.fingerprint.audio_encoder == {"name": "imported"}
    assert summary.fingerprint.text_encoder["weights"] == "built-in"
    assert summary.fingerprint.text_encoder["hashing_dim"] == 64


def test_text_embeddings_of_urgency_detect_s_pair_are_those_of_extract(extracted: Extracted, tmp_path: Path) -> None:
    run_dir, _, config = extracted
    table = embedded_rows(run_dir)
    frame = make_detect().iloc[np.zeros(len(table), int)].reset_index(drop=True)
    frame["_id"], frame["text"] = table["call_id"].to_pylist(), table["text"].to_pylist()
    import_artefacts(config, *write_detect(tmp_path, frame), str(tmp_path / "run"))
    assert load_examples(str(tmp_path / "run")).text.tobytes() == load_examples(run_dir).text.tobytes()


def test_names_in_nfd_are_the_names_that_extract_writes(tmp_path: Path) -> None:
    from unicodedata import normalize

    frame = make_detect()
    for column in ("sentiment", "urgencyLevel"):
        frame[column] = [f" {normalize('NFD', name)}" for name in frame[column]]
    import_artefacts(Config(), *write_detect(tmp_path, frame), str(tmp_path / "run"))
    examples = load_examples(str(tmp_path / "run"))
    assert examples.urgency.tolist() == [2, 2, 2, 0, 0]
    assert (examples.sentiment >= 0).all()


# Neither the encoders of the import nor those that made the embeddings.
OTHER_ENCODERS = {"audio_encoder.name": "facebook/data2vec-audio-base", "text_encoder.name": "jhgan/ko-sroberta-multitask"}


def test_an_imported_run_trains_with_any_config_and_predict_refuses_its_model(ray_session: None, tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    import_artefacts(Config(), *write_sense(tmp_path, make_sense(60)), run_dir)
    sizes = {"model.hidden_dim": 16, "model.num_layers": 1, "model.num_heads": 2, "model.feedforward_dim": 16}
    config = Config().replace({**sizes, **OTHER_ENCODERS, "train.epochs": 1, "train.cpus_per_worker": 1.0})
    metrics = train(config, run_dir)
    assert evaluate_run(config, run_dir).splits == metrics.splits
    with pytest.raises(RequestError, match="trained on imported embeddings"):
        repeat_transform(Config(), load_model(f"{run_dir}/model").transform)


def test_an_imported_run_of_utterances_is_split_by_call_under_any_config(tmp_path: Path) -> None:
    frame = pd.concat([make_detect().assign(_id=f"c{i:02d}", urgencyLevel=LEVELS[i % 3]) for i in range(30)])
    import_artefacts(Config(), *write_detect(tmp_path, frame), str(tmp_path / "run"))
    _, examples, splits = open_run(Config().replace(OTHER_ENCODERS), str(tmp_path / "run"))
    assert examples.fingerprint is None
    calls = [set(examples.keys["call_id"].iloc[rows]) for _, rows in splits.items()]
    assert sum(map(len, calls)) == len(set.union(*calls)) == 30


def test_extract_leaves_an_imported_run_alone(corpus: KnownCorpus, tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    import_artefacts(Config(), *write_sense(tmp_path, make_sense(3)), run_dir)
    with pytest.raises(RequestError, match=r"already holds other embeddings .*imported there, spectral here"):
        extract(Config().replace({"data.root": str(corpus[0])}), run_dir)
    assert len(load_examples(run_dir)) == 3


def test_uris_are_read_and_written(extracted: Extracted, tmp_path: Path) -> None:
    run_dir, _, config = extracted
    root = tmp_path.as_posix()
    files = f"file://{root}/m.csv", f"file://{root}/e.npz"
    export_artefacts(config, f"file://{run_dir}", *files)
    import_artefacts(config, *files, f"file://{root}/back")
    assert_same_rows(embedded_rows(run_dir), embedded_rows(tmp_path / "back"))


def test_rows_spread_over_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urgency_ray.commands.interchange.ROWS_PER_FILE", 3)
    frame = make_detect()
    frame.loc[[3, 4], "text"] = ""
    import_artefacts(Config(), *write_detect(tmp_path, frame), str(tmp_path / "run"))
    files = sorted(str(path.relative_to(tmp_path / "run" / "embeddings")) for path in (tmp_path / "run").rglob("*.parquet"))
    assert files == ["status=embedded/part-00000.parquet", "status=rejected/part-00001.parquet"]
    assert len(load_examples(str(tmp_path / "run"))) == 3


def run(*arguments: Any) -> Any:
    return cli.main([str(argument) for argument in arguments])


def one_line(capsys: pytest.CaptureFixture[str]) -> Any:
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    return error[0]


def test_the_commands_do_the_same(extracted: Extracted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, summary, _ = extracted
    files = "--metadata", tmp_path / "m.csv", "--embeddings", tmp_path / "e.npz"
    assert run("export", "--run-dir", run_dir, *files) == 0
    assert f"{summary.rows_embedded} rows exported" in one_line(capsys)
    assert run("import", *files, "--run-dir", tmp_path / "back") == 0
    counts = f"{summary.calls_embedded} calls read = {summary.calls_embedded} embedded + 0 rejected"
    assert counts in capsys.readouterr().err.splitlines()[0]
    assert_same_rows(embedded_rows(run_dir), embedded_rows(tmp_path / "back"))
    assert run("import", *files, "--run-dir", tmp_path / "back") == 2
    assert f"--run-dir {tmp_path / 'back'}: already holds embeddings" in one_line(capsys)
    assert run("export", "--run-dir", run_dir, "--metadata", tmp_path / "m.csv", "--embeddings", tmp_path / "e.npy") == 2
    assert "hold utterances, but --run-dir" in one_line(capsys)


def arrays(**given: Any) -> Any:
    return {"audio": np.zeros((3, 2), np.float32), "text": np.zeros((3, 2), np.float32)} | given


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (arrays(audio=np.zeros((4, 2))), "e.npz: audio: must have a row for each of the 3 of --metadata"),
        (arrays(text=np.zeros(3)), "e.npz: text: must be of shape (rows, width) but got (3,)"),
        (arrays(text=np.zeros((3, 0))), "e.npz: text: must be of shape (rows, width) but got (3, 0)"),
        (arrays(audio=np.zeros((3, 2), int)), "e.npz: audio: must be of floats but got int64"),
        (arrays(audio=np.full((3, 2), "a", object)), "e.npz: cannot be read as arrays of plain numbers: Object arrays"),
        ({"audio": np.zeros((3, 2))}, "e.npz: text: no such array"),
        (b"", "e.npz: cannot be read as arrays"),
        (b"PK\x03\x04 no zip", "e.npz: cannot be read as arrays"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr'", "e.npz: cannot be read as arrays"),
        (b"words", "e.npz: cannot be read as arrays of plain numbers: it is neither a .npz nor a .npy"),
        (None, "e.npz: no such file"),
    ],
)
def test_wrong_arrays_are_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, message: str
) -> None:
    metadata, _ = write_sense(tmp_path, make_sense(3))
    target = tmp_path / "e.npz"
    if isinstance(content, dict):
        np.savez(target, **content)
    elif content is not None:
        target.write_bytes(content)
    assert run("import", "--metadata", metadata, "--embeddings", target, "--run-dir", tmp_path / "run") == 2
    error = one_line(capsys)
    assert error.startswith("error: --embeddings ")
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_id,text\na,b\nc,d\ne,f\n", "has no column urgency_y; the files must be as UrgencySense's metadata.csv"),
        (make_detect().to_csv(), "has no column file_id, urgency_y; the files"),
        ("file_id,text,urgency_y\n", "holds no rows"),
        ("file_id,text,urgency_y\na,b,1,x\nc,d,2,x\n", "its rows have more fields than its header"),
        ("file_id,text,urgency_y\na,b,1\nc,d,2,x\n", "Expected 3 fields in line 3, saw 4"),
        ('file_id,text,urgency_y\na,"b,1\n', "cannot be read as CSV in UTF-8"),
        ("file_id,text,urgency_y\na,불,1\n".encode("cp949"), "cannot be read as CSV in UTF-8"),
        ("", "cannot be read as CSV in UTF-8: No columns"),
        ("file_id,text,urgency_y,peak_amp\na,b,1,loud\n", "peak_amp: must be numbers that fit float, or empty"),
        ("file_id,text,urgency_y,peak_amp\na,b,1,1e39\n", "peak_amp: must be numbers that fit float, or empty"),
        ("file_id,text,urgency_y,speaker\na,b,1,128\n", "speaker: must be numbers that fit int8, or empty"),
        ("file_id,text,urgency_y,start_ms\na,b,1,inf\n", "start_ms: must be numbers that fit int64, or empty"),
        (None, "no such file"),
    ],
)
def test_wrong_metadata_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, message: str
) -> None:
    _, embeddings = write_sense(tmp_path, make_sense(1))
    target = tmp_path / "m.csv"
    if content is not None:
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run("import", "--metadata", target, "--embeddings", embeddings, "--run-dir", tmp_path / "run") == 2
    error = one_line(capsys)
    assert error.startswith(f"error: --metadata {target}: ")
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["import", "export"])
def test_other_files_and_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    files = ["--metadata", tmp_path / "m.csv", "--embeddings"]
    assert run(command, *files, tmp_path / "e.h5", "--run-dir", tmp_path / "run") == 2
    assert "e.h5: must end in .npz (UrgencySense's" in one_line(capsys)
    assert run(command, *files, tmp_path / "e.npz") == 2
    assert "--run-dir" in one_line(capsys)
    assert run("export", *files, tmp_path / "e.npz", "--run-dir", tmp_path / "run") == 2
    assert "holds no embeddings" in one_line(capsys)


def test_no_transcript_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    frame = make_sense(3)
    frame.loc[0, "text"], frame.loc[0, "urgency_y"] = "비밀 주소", 7
    files = write_sense(tmp_path, frame)
    assert run("import", "--metadata", files[0], "--embeddings", files[1], "--run-dir", tmp_path / "run") == 0
    assert "비밀" not in capsys.readouterr().err + caplog.text + (tmp_path / "run" / "extract.json").read_text(encoding="utf-8")
    reject = next((tmp_path / "run" / "embeddings" / "status=rejected").iterdir())
    assert pq.read_table(reject)["detail"].to_pylist() == ["urgency_y: none of ('0', '1', '2')"]
