"""`urgency-ray demo`: the whole system on a synthetic corpus, and what it reached beside what could be reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from urgency_ray import storage
from urgency_ray.commands.extract import extract
from urgency_ray.commands.train import train
from urgency_ray.commands.tune import format_verdict, tune
from urgency_ray.config import Config
from urgency_ray.report.page import write_report
from urgency_ray.run_folder import RunFolder
from urgency_ray.scoring.blocks import ClassificationBlock
from urgency_ray.synthesize.corpus import synthesize
from urgency_ray.training.baselines import format_against

log = logging.getLogger(__name__)

Result = TypeVar("Result")


def demo(config: Config, run_dir: str) -> None:
    """Synthesize, extract, train with ablation, tune and report; print the table of macro-F1 and where the report is."""
    config = config.replace({"data.root": config.data.root or f"{run_dir.rstrip('/')}-corpus", "train.ablation": True})
    assert config.data.root is not None
    corpus = _timed("synthesize", lambda: synthesize(str(config.data.root), config.synthesize))
    _timed("extract", lambda: extract(config, run_dir))
    storage.write_text(RunFolder(run_dir).ceiling, corpus.ceiling.model_dump_json())
    metrics = _timed("train", lambda: train(config, run_dir))
    search = _timed("tune", lambda: tune(config, run_dir))
    report = _timed("report", lambda: write_report(run_dir, config.report))
    assert metrics.ablation is not None, "train.ablation is set"
    print(format_table(metrics.ablation, metrics.baselines or {}, corpus.ceiling.model_dump()))
    if metrics.against_baseline is not None:
        print("", format_against(metrics.against_baseline), sep="\n")
    print("", *format_verdict(search), sep="\n")
    print(f"run folder: {run_dir}\nreport: {report}")


def _timed(name: str, stage: Callable[[], Result]) -> Result:
    log.info("== %s", name)
    started = time.monotonic()
    result = stage()
    log.info("== %s took %.0f s", name, time.monotonic() - started)
    return result


def format_table(
    ablation: Mapping[str, ClassificationBlock], baselines: Mapping[str, ClassificationBlock], ceiling: Mapping[str, float]
) -> str:
    """Macro-F1 on test by modality, with its interval, between that of a linear model and the best that any classifier could
    reach on this corpus.
    """
    lines = ["", f"{'model':<8}{'test macro-F1':>15}{'95 % interval':>18}{'linear':>10}{'ceiling':>10}"]
    for name in ("audio", "text", "fused"):
        block = ablation[name]
        low, high = block.macro_f1_interval
        linear = f"{baselines[key].macro_f1:.3f}" if (key := f"linear_{name}") in baselines else "-"
        lines.append(f"{name:<8}{block.macro_f1:>15.3f}{f'{low:.3f} to {high:.3f}':>18}{linear:>10}{ceiling[name]:>10.3f}")
    lines.append(
        f"n = {ablation['fused'].num_rows} test calls; the ceiling is a population figure: a sample scatters around it"
    )
    return "\n".join(lines)
