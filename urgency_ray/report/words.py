"""What the page says in words: reasons, measures, numbers, the verdict on fusion."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from urgency_ray.errors import Reason
from urgency_ray.scoring.blocks import AgainstBaseline, ClassificationBlock, SearchSummary

EXPLANATIONS: dict[Reason, str] = {
    Reason.MISSING_AUDIO: "A label file without a recording of the same name.",
    Reason.MISSING_LABEL: "A recording without a label file of the same name.",
    Reason.DUPLICATE_STEM: "A copy of a call that is read, or a second recording or label file beside one.",
    Reason.DUPLICATE_ID: "A row of the manifest whose id another row before it has.",
    Reason.INVALID_ROW: "A row of the manifest with a value that cannot be read, or without its audio.",
    Reason.AMBIGUOUS_STEM: "Several recordings or label files have this name, and no folder says which belong together.",
    Reason.UNREADABLE_ARCHIVE: "The archive is of a kind that is not read, comes in parts, or its directory is damaged.",
    Reason.UNREADABLE_FILE: "The file is encrypted or damaged, no regular file, or reading it failed.",
    Reason.FILE_TOO_LARGE: "The file is larger than the longest accepted call could be.",
    Reason.INVALID_JSON: "The label file is not JSON, or in none of the encodings that are read.",
    Reason.INVALID_LABEL: "A field of the label file that is used is missing, given twice, or of the wrong type.",
    Reason.MISSING_URGENCY: "The label file states no urgency.",
    Reason.UNKNOWN_URGENCY: "The urgency stated is none of 하, 중, 상.",
    Reason.NO_TEXT: "No words are left in the transcript.",
    Reason.NOT_AUDIO: "The recording is no file that can be decoded.",
    Reason.EMPTY_AUDIO: "The recording has no bytes, or a header and no samples.",
    Reason.TRUNCATED_AUDIO: "The recording ends before the length that its header promises.",
    Reason.TOO_LONG: "The call is longer than data.max_call_sec.",
    Reason.INVALID_SAMPLES: "Samples of the recording are not finite numbers.",
    Reason.SILENT_AUDIO: "Every sample of the recording is zero, or the same.",
    Reason.CHANNELS_CANCEL: "The channels of the recording cancel in their mean; set data.channel.",
    Reason.TOO_SHORT: "The call is shorter than data.min_call_sec, or the utterance than data.min_utterance_sec.",
    Reason.INVALID_EMBEDDING: "An encoder gave values that are not finite numbers.",
    Reason.INVALID_PROBABILITY: "The classifier gave values that are not finite numbers, as extreme embeddings make it.",
    Reason.INVALID_SPAN: "The utterance has no times, ends before it starts, or lies outside the recording.",
}
"""What a reader is told about each reason."""

SELECTED_BY = {
    "urgency_macro_f1": "validation macro-F1",
    "mean_of_tasks": "mean of both tasks’ validation macro-F1",
    "urgency_likelihood": "likelihood of the validation labels",
}
"""What picks the best epoch, by `train.select_by`."""

MEASURES = (
    ("accuracy", "share", "Accuracy", "share of the rows given the right class"),
    ("macro_f1", "score", "Macro-F1", "mean of the classes’ F1, so that a rare class counts as much as a common one"),
    ("recall_high", "share", "Recall of 상", "share of the 상 rows that are found"),
    (
        "high_called_low",
        "share",
        "상 called 하",
        "share of the 상 rows taken for the lowest class: the costly error, best at 0",
    ),
    ("under_triage", "share", "Under-triage", "share of the rows called less urgent than they are"),
    ("over_triage", "share", "Over-triage", "share of the rows called more urgent than they are"),
    ("auroc_high", "score", "AUROC of 상", "how often a 상 row has a higher P(상) than another row; 0.5 is chance"),
    ("auprc_high", "score", "AUPRC of 상", "mean precision over all recalls of 상; chance is the share of 상"),
    ("ordinal_mae", "score", "Ordinal MAE", "mean number of classes between the true and the predicted one; best 0, worst 2"),
    (
        "quadratic_kappa",
        "score",
        "Quadratic kappa",
        "agreement beyond chance, where far misses weigh more; 1 is perfect, 0 is chance",
    ),
    ("log_loss", "score", "Log loss", "mean of −log of the probability of what was true; best 0, 1.099 says nothing"),
    ("brier", "score", "Brier score", "squared distance of the probabilities from the truth; best 0, worst 2"),
    (
        "expected_calibration_error",
        "share",
        "Calibration error",
        "mean gap between stated confidence and share right, best at 0",
    ),
)
"""Figures of a metrics block: key, the filter that prints it, name, what it says."""


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def score(value: Any) -> str:
    """0.612, or a dash where there is no figure (an absent class has no recall)."""
    number = _finite(value)
    return "–" if number is None else f"{number:.3f}"


def share(value: Any) -> str:
    """A fraction as 61.2 %."""
    number = _finite(value)
    return "–" if number is None else f"{100 * number:.1f} %"


def signed(value: float) -> str:
    """+0.012 or −0.012."""
    return f"{value:+.3f}".replace("-", "−")


def count(value: Any) -> str:
    """1,588."""
    number = _finite(value)
    return "–" if number is None else f"{number:,.0f}"


def interval(block: ClassificationBlock) -> str:
    """The macro-F1's interval of a metrics block."""
    low, high = block.macro_f1_interval
    return f"{score(low)} to {score(high)}"


def duration(seconds: Any) -> str:
    """Seconds in the unit that keeps the number short."""
    number = _finite(seconds)
    if number is None:
        return "–"
    if number < 60:
        return f"{number:.1f} s"
    return f"{number / 60:.1f} min" if number < 3600 else f"{number / 3600:,.1f} h"


def value(setting: Any, spec: str = ".12g") -> str:
    """A config value as one would type it; of a path only the last part, since the rest tells where somebody works."""
    if isinstance(setting, float):  # Arrow and pandas make floats of integers that have a null beside them
        return format(setting, ".0f" if setting.is_integer() else spec)
    if isinstance(setting, str):
        is_path = setting.startswith(("/", "~", ".")) or "://" in setting
        return posixpath.basename(setting.rstrip("/")) if is_path else setting
    return json.dumps(setting, ensure_ascii=False)


FILTERS: dict[str, Callable[..., str]] = {
    "score": score,
    "share": share,
    "count": count,
    "interval": interval,
    "duration": duration,
    "signed": signed,
    "value": value,
}
"""For the template."""


def fusion_verdict(blocks: Mapping[str, ClassificationBlock]) -> str | None:
    """What the intervals of an ablation allow to say about fusing both modalities; None where it compares nothing."""
    singles = [name for name in ("audio", "text") if name in blocks]
    if "fused" not in blocks or not singles:
        return None
    best = max(singles, key=lambda name: blocks[name].macro_f1)
    fused, single = blocks["fused"], blocks[best]
    figures = f"fused {score(fused.macro_f1)} ({interval(fused)}), {best} {score(single.macro_f1)} ({interval(single)})"
    (fused_low, fused_high), (low, high) = fused.macro_f1_interval, single.macro_f1_interval
    if fused_low <= high and low <= fused_high:
        return (
            f"The intervals of fused and of {best}, the better single modality, overlap: {figures}. "
            f"These {count(fused.num_rows)} test rows do not show that fusing both beats {best} alone."
        )
    order = "better" if fused.macro_f1 > single.macro_f1 else "worse"
    return f"Fusing both is {order} than {best}, the better single modality; the intervals do not overlap: {figures}."


def baseline_verdict(against: AgainstBaseline) -> str:
    """Whether the model beats the best baseline, as far as the test rows can tell."""
    low, high = against.interval
    name = against.baseline.replace("_", " ")
    figures = f"{signed(against.macro_f1)} macro-F1 on test, 95 % interval {signed(low)} to {signed(high)}"
    if against.verdict == "no_better":
        return f"No better beyond noise than the best baseline, {name}: {figures}."
    return f"{'Better' if against.verdict == 'better' else 'Worse'} beyond noise than the best baseline, {name}: {figures}."


def search_ensemble(tune: SearchSummary) -> str | None:
    """What mixing the models of a search came to; None where it was not asked for."""
    if (mixed := tune.ensemble) is None:
        return None
    shares = ", ".join(f"{name} {share:.0%}" for name, share in mixed.shares.items())
    losses = ", ".join(f"{score(loss)} {name}" for name, loss in mixed.log_loss.items())
    worth = " and ".join(
        f"{signed(difference.macro_f1)} against {other} (95 % interval {signed(difference.interval[0])} to "
        f"{signed(difference.interval[1])})"
        for other, difference in (("the winner alone", mixed.against_winner), ("the defaults", mixed.against_defaults))
    )
    return (
        f"Their ensemble is made of {shares}: test macro-F1 {score(mixed.test.macro_f1)}, {worth}. Log loss on rows that the "
        f"models have not seen: {losses}. The model saved is that of {mixed.chosen}."
    )


def tuning_verdict(tune: SearchSummary) -> tuple[str, bool]:
    """Whether the trial picked beats the config as it was before the search, as far as the test rows can tell.

    Args:
        tune: tune/metrics.json. Its `difference` is winner less defaults on test, with a paired bootstrap's 95 % interval.

    Returns:
        What to say, and whether the winner is better.
    """
    difference, mixed = tune.difference, tune.ensemble
    name = "the ensemble of its models" if mixed is not None and mixed.chosen == "ensemble" else f"trial {tune.best_trial}"
    if difference is None:
        return f"Whether {name}, which the search picked, is better than the recipe’s defaults was not measured.", False
    low, high = difference.interval
    if difference.verdict in ("same", "defaults"):
        if mixed is not None and mixed.chosen == "defaults":
            return "The search kept the recipe’s defaults: nothing did better on rows that it had not seen.", False
        return "The search picked the recipe’s defaults themselves: no other trial did better on validation.", False
    scores = score(tune.test.macro_f1)
    if tune.defaults is not None:
        scores += f" against {score(tune.defaults.test.macro_f1)}"
    around = f"95 % interval {signed(low)} to {signed(high)}"
    figures = f"test macro-F1 {scores}, a difference of {signed(difference.macro_f1)} ({around})"
    if low > 0:
        return f"The search found better: {name} beats the recipe’s defaults beyond noise, {figures}.", True
    if high < 0:
        return f"Keep the recipe’s defaults: {name}, which the search picked, is worse beyond noise, {figures}.", False
    return (
        f"The search found nothing that is better than the recipe’s defaults beyond noise: {name} has {figures}; "
        "that interval includes zero."
    ), False
