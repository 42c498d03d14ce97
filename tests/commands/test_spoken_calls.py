"""Real speech in AI-Hub's layout, where the checkout has it beside it: each planted flaw becomes what flaws.json says."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import SPOKEN_CALLS
from shared_runs import Extracted, Share

from urgency_ray.commands.extract import extract
from urgency_ray.commands.predict import predict
from urgency_ray.commands.train import train
from urgency_ray.commands.tune import tune
from urgency_ray.config import Config
from urgency_ray.examples.dataset import load_examples
from urgency_ray.examples.splits import split_examples
from urgency_ray.report.page import write_report

pytestmark = pytest.mark.skipif(not SPOKEN_CALLS.is_dir(), reason="no ../shared/data/spoken_calls beside this checkout")


@pytest.fixture(scope="module")
def flaws() -> Any:
    return {flaw["stem"]: flaw for flaw in json.loads((SPOKEN_CALLS / "flaws.json").read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def spoken(ray_session: None, demo_config: Config, share: Share) -> Extracted:
    """(run folder, summary, config) of the spoken calls, extracted; read only."""
    config = demo_config.replace({"data.root": str(SPOKEN_CALLS)})
    return *share("spoken", extract, lambda run_dir: extract(config, run_dir)), config


def read_rows(run_dir: Any) -> Any:
    parts = [pd.read_parquet(f"{run_dir}/embeddings/status={s}").assign(status=s) for s in ("embedded", "rejected")]
    return pd.concat(parts).set_index("call_id")


def test_every_flaw_is_treated_as_stated(spoken: Extracted, flaws: Any) -> None:
    run_dir, summary, _ = spoken
    rows = read_rows(run_dir)
    # 150 calls; flaws.json itself lies in the folder and is a label without a WAV.
    assert summary.calls_read == len(rows) == 150 + 1
    assert rows.loc["flaws", "reason"] == "missing_audio"
    for stem, flaw in flaws.items():
        wanted = "rejected" if flaw["expected"].startswith("rejected") else "embedded"
        assert rows.loc[stem, "status"] == wanted, flaw
    rejected = {stem for stem, flaw in flaws.items() if flaw["expected"].startswith("rejected")}
    assert set(rows.index[rows["status"] == "rejected"]) == rejected | {"flaws"}
    truncated = next(stem for stem, flaw in flaws.items() if "cut off after a third" in flaw["flaw"])
    assert rows.loc[truncated, "reason"] == "truncated_audio"
    masked = next(stem for stem, flaw in flaws.items() if "masked" in flaw["flaw"])
    assert "*" not in rows.loc[masked, "text"]
    assert "개인정보" not in rows.loc[masked, "text"]


def test_calls_with_the_same_audio_fall_in_one_split(spoken: Extracted, flaws: Any) -> None:
    run_dir, _, config = spoken
    twin = next(stem for stem, flaw in flaws.items() if flaw["flaw"].startswith("same audio as "))
    other = flaws[twin]["flaw"].removeprefix("same audio as ")
    examples = load_examples(run_dir)
    for seed in range(8):
        splits = split_examples(examples, config.replace({"split.seed": seed}).split)
        sides = [name for name, rows in splits.items() if set(examples.keys["call_id"].iloc[rows]) & {twin, other}]
        assert len(sides) == 1


def test_bad_utterances_are_rejected_alone(ray_session: None, demo_config: Config, flaws: Any, tmp_path: Path) -> None:
    config = demo_config.replace({"data.root": str(SPOKEN_CALLS), "data.unit": "utterance", "data.min_utterance_sec": 0.3})
    summary = extract(config, str(tmp_path / "run"))
    assert summary.calls_embedded + summary.calls_rejected == summary.calls_read == 151
    rows = read_rows(tmp_path / "run")
    backwards = rows.loc[next(stem for stem, flaw in flaws.items() if "ends before it starts" in flaw["flaw"])]
    assert (backwards["reason"] == "invalid_span").sum() == 1
    assert (backwards["status"] == "embedded").any()
    late = rows.loc[next(stem for stem, flaw in flaws.items() if "ends a minute after" in flaw["flaw"])]
    call_ms = read_call_ms(late.index[0])
    assert late["end_ms"].max() == pytest.approx(call_ms, abs=1)


def read_call_ms(stem: Any) -> Any:
    import io
    import wave
    import zipfile

    for path in SPOKEN_CALLS.rglob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            if f"{stem}.wav" in archive.namelist():
                with wave.open(io.BytesIO(archive.read(f"{stem}.wav"))) as sound:
                    return 1000 * sound.getnframes() / sound.getframerate()
    raise AssertionError(stem)


@pytest.mark.slow
def test_train_tune_predict_and_report_run_on_it(spoken: Extracted, tmp_path: Path) -> None:
    run_dir, config = str(shutil.copytree(spoken[0], tmp_path / "run")), spoken[2]
    metrics = train(config, run_dir)
    assert metrics.splits["test"]["urgency"].num_rows == 30
    summary = tune(config.replace({"tune.num_trials": 8}), run_dir)
    assert summary.num_trials == 8
    counts = predict(
        Config().replace({"data.root": str(SPOKEN_CALLS / "Validation")}), f"{run_dir}/model", str(tmp_path / "p.csv")
    )
    assert counts["rows_predicted"] == 30
    assert write_report(run_dir).endswith("report.html")
