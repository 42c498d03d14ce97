"""The README's first command, as shipped."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from urgency_ray import cli
from urgency_ray.commands.demo import format_table
from urgency_ray.scoring.blocks import ClassificationBlock

ROOT = Path(__file__).parents[2]


def test_the_table_sets_each_score_beside_its_ceiling() -> None:
    block = ClassificationBlock.model_construct(macro_f1=0.61, macro_f1_interval=(0.5, 0.7), num_rows=200)
    ceiling = {"audio": 0.75, "text": 0.76, "fused": 0.9}
    table = format_table(dict.fromkeys(ceiling, block), {"linear_audio": block}, ceiling).splitlines()
    assert table[2].split() == ["audio", "0.610", "0.500", "to", "0.700", "0.610", "0.750"]
    assert table[3].split() == ["text", "0.610", "0.500", "to", "0.700", "-", "0.760"]
    assert "n = 200" in table[-1]


@pytest.mark.slow
def test_the_demo_shows_that_fusing_beats_both_and_leaves_the_run_folder(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "demo"
    assert cli.main(["demo", "--config", str(ROOT / "configs" / "demo.yaml"), "--run-dir", str(run_dir)]) == 0
    shown = capsys.readouterr().out
    assert "ceiling" in shown
    assert str(run_dir / "report.html") in shown
    scores = {name: block["macro_f1"] for name, block in json.loads((run_dir / "metrics.json").read_text())["ablation"].items()}
    assert scores["fused"] > max(scores["audio"], scores["text"])
    names = "config.yaml extract.json metrics.json history.json predictions.parquet report.html ceiling.json"
    assert {*names.split(), "embeddings", "model", "checkpoints", "tensorboard", "tune"} == {
        path.name for path in run_dir.iterdir()
    }
    assert {"config.json", "model.safetensors", "README.md"} == {path.name for path in (run_dir / "model").iterdir()}
    assert {"config.yaml", "study.log", "trials.parquet", "history.parquet", "best.yaml", "metrics.json"} <= {
        path.name for path in (run_dir / "tune").iterdir()
    }
    check_the_example_in_python(run_dir)


def check_the_example_in_python(run_dir: Path) -> None:
    """The lines of docs/results.md, on this run folder, give predictions.parquet's probabilities."""
    example = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    lines = example.group(1)
    assert "runs/demo/" in lines
    names: dict[str, Any] = {}
    exec(lines.replace("runs/demo", str(run_dir)).replace("    model.prob", "    shown = model.prob"), names)
    known = pq.read_table(run_dir / "predictions.parquet").to_pandas().set_index("example_id").loc[names["rows"]["example_id"]]
    # The other rows are there as the members see them that were not trained on them.
    tested = (known["split"] == "test").to_numpy()
    shown = known.loc[tested, ["prob_low", "prob_mid", "prob_high"]]
    np.testing.assert_allclose(names["shown"].numpy()[tested], shown, atol=1e-5)
