import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from urgency_ray.calls import plan_calls
from urgency_ray.config import Config, ConfigError
from urgency_ray.dataset import load_examples
from urgency_ray.extract import account, extract, plan_actors
from urgency_ray.schema import embedding_schema, read_fingerprint


def read_rows(run_dir):
    return pads.dataset(f"{run_dir}/embeddings", partitioning="hive").to_table().to_pandas()


def test_every_call_read_is_embedded_or_rejected_with_its_reason(extracted, corpus):
    run_dir, summary, config = extracted
    known = corpus[1]
    assert summary["calls_read"] == known.num_calls == 100
    assert summary["calls_embedded"] + summary["calls_rejected"] == summary["calls_read"]
    assert summary["rejected_by_reason"] == dict(Counter(flaw.flaw for flaw in known.flaws))
    rows = read_rows(run_dir)
    rejects = rows[rows["status"] == "rejected"].set_index("call_id")["reason"]
    assert rejects.to_dict() == {flaw.stem: flaw.flaw for flaw in known.flaws}
    assert sorted(rows["call_id"]) == sorted(plan_calls(config.data)["call_id"].to_pylist())
    assert json.loads(Path(run_dir, "extract.json").read_text(encoding="utf-8")) == summary


def test_the_run_folder_is_laid_out_as_the_contract_says(extracted):
    run_dir, summary, _ = extracted
    assert {path.name for path in Path(run_dir, "embeddings").iterdir()} == {"status=embedded", "status=rejected"}
    rows = pads.dataset(f"{run_dir}/embeddings", partitioning="hive")
    assert read_fingerprint(rows.schema) == summary["fingerprint"]
    assert summary["fingerprint"]["audio_encoder"]["name"] == "spectral"
    assert pa.types.is_fixed_size_list(rows.schema.field("audio_embedding").type)
    assert summary["audio_sec"] == pytest.approx(read_rows(run_dir)["duration_sec"].sum(), abs=0.1)


def test_the_same_command_again_changes_nothing(extracted):
    run_dir, summary, config = extracted
    files = {path: path.stat().st_mtime_ns for path in Path(run_dir).rglob("*") if path.is_file()}
    assert extract(config, run_dir) == summary
    assert files == {path: path.stat().st_mtime_ns for path in Path(run_dir).rglob("*") if path.is_file()}


def test_other_encoders_and_other_calls_are_refused_with_the_reason(extracted, tmp_path):
    run_dir, _, config = extracted
    with pytest.raises(ConfigError, match=r"already holds other embeddings \(text_encoder\.hashing_dim: 512 there, 256 here\)"):
        extract(config.replace({"text_encoder.hashing_dim": 256}), run_dir)
    (tmp_path / "x_1.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="other calls"):
        extract(config.replace({"data.root": str(tmp_path)}), run_dir)


def test_what_an_interrupted_run_left_is_not_mixed_in(ray_session, corpus, demo_config, tmp_path):
    stale = tmp_path / "run" / "embeddings" / "status=embedded"
    stale.mkdir(parents=True)
    (stale / "old.parquet").write_bytes(b"not even parquet")
    summary = extract(demo_config.replace({"data.root": str(corpus[0])}), str(tmp_path / "run"))
    assert summary["calls_read"] == 100


def test_utterance_rows_come_from_the_same_calls(ray_session, corpus, demo_config, tmp_path):
    config = demo_config.replace({"data.root": str(corpus[0]), "data.unit": "utterance", "data.min_utterance_sec": 0.4})
    summary = extract(config, str(tmp_path / "run"))
    assert summary["calls_read"] == 100
    assert summary["calls_embedded"] == 100 - corpus[1].num_flawed
    assert summary["rows_embedded"] > 2 * summary["calls_embedded"]
    rows = read_rows(tmp_path / "run")
    heard = rows[rows["status"] == "embedded"]
    assert (heard["duration_sec"] >= 0.4 - 1e-3).all()
    assert heard["example_id"].is_unique


def test_rows_come_back_sorted_with_their_vectors(extracted):
    run_dir, _, _ = extracted
    rows = read_rows(run_dir)
    rows = rows[rows["status"] == "embedded"].sort_values("example_id")
    examples = load_examples(run_dir)
    assert examples.keys["example_id"].tolist() == rows["example_id"].tolist()
    np.testing.assert_array_equal(examples.audio, np.stack(rows["audio_embedding"]))
    np.testing.assert_array_equal(examples.text, np.stack(rows["text_embedding"]))
    assert examples.urgency.tolist() == rows["urgency"].tolist()


def write_rows(folder, rows):
    schema = embedding_schema(2, 2, {})
    defaults = {
        "provider_split": "unknown",
        "status": "embedded",
        "duration_sec": 1.0,
        "num_windows": 1,
        "num_tokens_dropped": 0,
    }
    table = pa.Table.from_pylist([{**defaults, **row} for row in rows], schema=schema)
    pads.write_dataset(table, folder, format="parquet", partitioning=["status"], partitioning_flavor="hive")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "a"), ("b", "b")], "1 planned calls have no row"),
        ([("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")], "1 rows no plan"),
        ([("a", "a"), ("b", "b"), ("c", "c"), ("c", "c")], "written twice"),
    ],
)
def test_accounting_sees_lost_and_doubled_rows(tmp_path, rows, message):
    write_rows(tmp_path, [{"example_id": example, "call_id": call} for example, call in rows])
    with pytest.raises(RuntimeError, match=message):
        account(str(tmp_path), pa.table({"call_id": ["a", "b", "c"]}))


def test_a_call_is_embedded_when_one_of_its_utterances_is(tmp_path):
    rejected = {"status": "rejected", "duration_sec": None, "num_windows": None, "num_tokens_dropped": None}
    write_rows(
        tmp_path,
        [
            {"example_id": "a/0", "call_id": "a", "num_windows": 2},
            {"example_id": "a/1", "call_id": "a", **rejected, "reason": "too_short"},
            {"example_id": "b/0", "call_id": "b", **rejected, "reason": "no_text"},
            {"example_id": "b/1", "call_id": "b", **rejected, "reason": "too_short"},
        ],
    )
    counts = account(str(tmp_path), pa.table({"call_id": ["a", "b"]}))
    assert (counts["calls_read"], counts["calls_embedded"], counts["calls_rejected"]) == (2, 1, 1)
    assert counts["rejected_by_reason"] == {"no_text": 1}
    assert counts["rows_rejected_by_reason"] == {"too_short": 2, "no_text": 1}
    assert counts["rows_windowed"] == 1


@pytest.mark.parametrize("num_cpus", [1, 2, 4, 16, 96])
@pytest.mark.parametrize("audio", ["spectral", "facebook/data2vec-audio-base"])
def test_actors_leave_cpus_for_decoding(num_cpus, audio):
    hear, read = plan_actors(Config().replace({"audio_encoder.name": audio}), num_cpus, 0)
    held = hear.num_actors * hear.num_cpus + read.num_actors * read.num_cpus
    # Room for a decode task (0.25) and predict's classifier (0.1).
    assert held <= num_cpus - 0.35
    assert hear.num_actors * hear.threads <= max(num_cpus, 1)


@pytest.mark.parametrize("num_gpus", [1, 3, 8])
def test_encoders_share_the_gpus(num_gpus):
    config = Config().replace({"audio_encoder.name": "a", "text_encoder.name": "b"})
    hear, read = plan_actors(config, 64, num_gpus)
    assert hear.num_actors == num_gpus
    assert hear.num_actors * hear.num_gpus + read.num_actors * read.num_gpus <= num_gpus
    assert (hear.device, read.device) == ("cuda", "cuda")


def test_a_gpu_that_is_not_there_is_one_clear_line():
    with pytest.raises(ConfigError, match=r"extract\.use_gpu: true, but the cluster has no GPU"):
        plan_actors(Config().replace({"extract.use_gpu": True}), 2, 0)
