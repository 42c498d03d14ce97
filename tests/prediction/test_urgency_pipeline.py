"""The model in the user's own process: the numbers of `predict`, whatever a recording comes as."""

import io
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from call_files import put, tarred, zipped
from odd_checkpoints import save_electra
from shared_runs import Extracted, KnownCorpus, Trained
from tiny_checkpoints import save_model

import urgency_ray
from urgency_ray import Prediction, UrgencyPipeline
from urgency_ray.calls.files import read_file
from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import Config, DataConfig, TextEncoderConfig
from urgency_ray.encoders.pretrained_text import PretrainedTextEncoder
from urgency_ray.errors import RequestError
from urgency_ray.run_folder import RunFolder

KEYS = {"하": "prob_low", "중": "prob_mid", "상": "prob_high"}
MAX_BYTES = 1 << 26
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pipeline(trained: Trained) -> UrgencyPipeline:
    return UrgencyPipeline.from_pretrained(RunFolder(trained[0]).model)


@pytest.fixture(scope="module")
def known(trained: Trained) -> pd.DataFrame:
    """The run's own probabilities, by call."""
    return pd.read_parquet(RunFolder(trained[0]).predictions).set_index("call_id")


@pytest.fixture(scope="module")
def calls(corpus: KnownCorpus, known: pd.DataFrame) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Recording and label of some calls, by id."""
    rows = [row for row in plan_calls(DataConfig(root=str(corpus[0]))).to_pylist() if row["call_id"] in known.index]
    return {
        row["call_id"]: (
            read_file(row["audio_container"], row["audio_member"], MAX_BYTES),
            json.loads(read_file(row["label_container"], row["label_member"], MAX_BYTES)),
        )
        for row in rows[:12]
    }


def check(prediction: Prediction, row: pd.Series) -> None:
    assert prediction.reason is None
    for name, column in KEYS.items():
        assert prediction.probabilities[name] == pytest.approx(row[column], abs=1e-5)
    assert prediction.urgency == max(prediction.probabilities, key=lambda name: prediction.probabilities[name])


def test_a_batch_of_recordings_gets_the_run_s_own_probabilities(
    pipeline: UrgencyPipeline, calls: dict[str, Any], known: pd.DataFrame
) -> None:
    batch = [{"audio": audio, "utterances": label["utterances"]} for audio, label in calls.values()]
    for call_id, prediction in zip(calls, pipeline(batch), strict=True):
        check(prediction, known.loc[call_id])


def test_a_recording_may_be_a_path_or_samples_and_its_label_a_file(
    pipeline: UrgencyPipeline, calls: dict[str, Any], known: pd.DataFrame, tmp_path: Path
) -> None:
    call_id, (audio, label) = next(iter(calls.items()))
    (tmp_path / "a.wav").write_bytes(audio)
    (tmp_path / "a.json").write_text(json.dumps(label, ensure_ascii=False), encoding="utf-8")
    check(pipeline({"audio": tmp_path / "a.wav", "label": tmp_path / "a.json"}), known.loc[call_id])
    samples, rate = soundfile.read(io.BytesIO(audio), dtype="float32")
    check(pipeline({"audio": samples, "sampling_rate": rate, "utterances": label["utterances"]}), known.loc[call_id])
    words = " ".join(turn["text"] for turn in label["utterances"])
    check(pipeline({"audio": audio, "text": words}), known.loc[call_id])


def test_recording_and_label_may_lie_in_archives(
    pipeline: UrgencyPipeline, calls: dict[str, Any], known: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call_id, (audio, label) = next(iter(calls.items()))
    put(tmp_path / "TS_1.zip", zipped({"day/a.wav": audio}))
    put(tmp_path / "TL_1.tar", tarred({"day/a.json": json.dumps(label, ensure_ascii=False).encode()}))
    names = {"audio": "TS_1.zip/day/a.wav", "label": "tar://day/a.json::TL_1.tar"}
    elsewhere = {"audio": tmp_path / "TS_1.zip" / "day" / "a.wav", "label": f"file://{tmp_path}/TL_1.tar/day/a.json"}
    for prediction in pipeline([names, elsewhere]):
        check(prediction, known.loc[call_id])
    gone = [names | {"audio": "TS_1.zip/b.wav"}, names | {"audio": "TS_2.zip/b.wav"}, names | {"label": "TL_1.tar/b.json"}]
    assert [(each.reason, each.detail) for each in pipeline(gone)] == [
        ("missing_audio", "no such file in the archive"),
        ("missing_audio", "no such file"),
        ("missing_label", "no such file in the archive"),
    ]


def test_the_lines_of_readme_run(trained: Trained, calls: dict[str, Any], tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if "UrgencyPipeline" in block)
    audio, _ = next(iter(calls.values()))
    (tmp_path / "call.wav").write_bytes(audio)
    names: dict[str, Any] = {}
    code = code.replace("runs/demo/model", RunFolder(trained[0]).model).replace("call.wav", str(tmp_path / "call.wav"))
    exec(code, names)
    assert names["called"].urgency in KEYS


def test_each_encoder_is_loaded_once_and_proves_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_electra(tmp_path / "text")
    save_model(tmp_path / "model", Config().replace({"text_encoder.name": str(tmp_path / "text")}), text_dim=24)
    loaded: list[str] = []
    load = PretrainedTextEncoder.__init__

    def note(self: PretrainedTextEncoder, config: TextEncoderConfig, device: str = "cpu") -> None:
        loaded.append(config.name)
        load(self, config, device)

    monkeypatch.setattr(PretrainedTextEncoder, "__init__", note)
    UrgencyPipeline.from_pretrained(str(tmp_path / "model"))
    assert loaded == [str(tmp_path / "text")]
    monkeypatch.setattr(PretrainedTextEncoder, "encode", lambda *_: 1 / 0)
    with pytest.raises(RequestError, match=r"^text encoder .*/text: cannot be used: ZeroDivisionError"):
        UrgencyPipeline.from_pretrained(str(tmp_path / "model"))


def test_threads_take_turns(pipeline: UrgencyPipeline, calls: dict[str, Any], known: pd.DataFrame) -> None:
    batch = [{"audio": audio, "utterances": label["utterances"]} for audio, label in calls.values()]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(pipeline, batch))
    for call_id, prediction in zip(calls, found, strict=True):
        check(prediction, known.loc[call_id])


def test_what_cannot_be_used_has_a_reason_and_disturbs_no_other(
    pipeline: UrgencyPipeline, calls: dict[str, Any], known: pd.DataFrame, tmp_path: Path
) -> None:
    call_id, (audio, label) = next(iter(calls.items()))
    whole = {"audio": audio, "utterances": label["utterances"]}
    silence = {"audio": np.zeros(16_000, np.float32), "sampling_rate": 16_000, "text": "불이 났어요"}
    gone = {"audio": tmp_path / "gone.wav", "text": "불이 났어요"}
    found = pipeline([silence, whole, gone, {"audio": audio[:100], "text": "불"}, {"audio": audio, "text": "[개인정보]"}])
    assert [each.reason for each in found[:1] + found[2:]] == ["silent_audio", "unreadable_file", "truncated_audio", "no_text"]
    assert found[0].urgency is None and not found[0].probabilities
    check(found[1], known.loc[call_id])
    assert pipeline([]) == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"wav": b"", "text": "a"}, "wav: no such key of a call; it takes audio, sampling_rate, text, utterances, label"),
        ({"audio": b"a"}, "text, utterances or label: the model reads what was said"),
        ({"audio": b"a", "text": "a", "label": "b"}, "text and label: give one of them"),
        ({"audio": np.zeros(9), "text": "a"}, "sampling_rate: must be given with samples"),
        ({"audio": 3, "text": "a"}, "audio: must be a path"),
        ({"audio": "s3://k:s@b/a.wav", "text": "a"}, r"audio: holds a key and its secret, .* give s3://\*\*\*@b/a.wav without"),
    ],
)
def test_a_call_that_is_none_is_refused(pipeline: UrgencyPipeline, call: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        pipeline(call)


def test_a_hierarchical_model_says_which_utterance_weighed_most(
    utterances: Extracted, calls: dict[str, Any], tmp_path: Path
) -> None:
    from urgency_ray.config import ModelConfig
    from urgency_ray.fingerprint import Fingerprint, Transform
    from urgency_ray.model.classifier import UrgencyClassifier

    small = ModelConfig(name="hierarchical", hidden_dim=16, num_heads=2, num_layers=1, feedforward_dim=16, head_dim=8)
    config = utterances[2]
    fingerprint: Fingerprint = utterances[1].fingerprint
    kept = Transform.of(config, fingerprint).model_dump()
    UrgencyClassifier(small, 288, 512, False, kept).save_pretrained(tmp_path / "model")
    pipeline = UrgencyPipeline.from_pretrained(str(tmp_path / "model"))
    audio, label = next(iter(calls.values()))
    found = pipeline({"audio": audio, "utterances": label["utterances"]})
    assert sum(turn["weight"] for turn in found.attention) == pytest.approx(1, abs=1e-5)
    assert found.heaviest == max(found.attention, key=lambda turn: turn["weight"])
    spans = {(turn["startAt"], turn["endAt"]) for turn in label["utterances"]}
    assert {(turn["start_ms"], turn["end_ms"]) for turn in found.attention} <= spans
    with pytest.raises(RequestError, match="text: the model hears utterances"):
        pipeline({"audio": audio, "text": "불이 났어요"})


def test_importing_the_package_imports_nothing_more() -> None:
    code = "import sys, urgency_ray; sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        _ = urgency_ray.Pipeline
