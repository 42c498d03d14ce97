"""What the page says in words: reasons, measures, numbers. English here; `language` says it as the page wants it."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from urgency_ray.errors import Reason
from urgency_ray.report.korean import REASONS
from urgency_ray.report.language import say, spoken
from urgency_ray.scoring.blocks import ClassificationBlock

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


def explanations() -> Mapping[Reason, str]:
    """What a reader is told about each reason, in the language of the page."""
    return REASONS if spoken() == "ko" else EXPLANATIONS


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


Measure = tuple[str, str, str, str]


def measures() -> list[Measure]:
    """`MEASURES` in the language of the page."""
    return [(key, kind, say(name), say(says)) for key, kind, name, says in MEASURES]


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


def two(value: Any) -> str:
    """0.61, or a dash where there is no figure."""
    number = _finite(value)
    return "–" if number is None else f"{number:.2f}"


def interval(block: ClassificationBlock) -> str:
    """The macro-F1's interval of a metrics block."""
    return span(block.macro_f1_interval)


def span(ends: tuple[float, float]) -> str:
    """An interval of scores."""
    return say("%(low)s to %(high)s", low=score(ends[0]), high=score(ends[1]))


def share_span(ends: tuple[float, float]) -> str:
    """An interval of shares."""
    return say("%(low)s to %(high)s", low=share(ends[0]), high=share(ends[1]))


def signed_span(ends: tuple[float, float]) -> str:
    """An interval of differences."""
    return say("%(low)s to %(high)s", low=signed(ends[0]), high=signed(ends[1]))


def duration(seconds: Any) -> str:
    """Seconds in the unit that keeps the number short."""
    number = _finite(seconds)
    if number is None:
        return "–"
    if number < 60:
        return say("%(number)s s", number=f"{number:.1f}")
    if number < 3600:
        return say("%(number)s min", number=f"{number / 60:.1f}")
    return say("%(number)s h", number=f"{number / 3600:,.1f}")


def value(setting: Any, spec: str = ".12g") -> str:
    """A config value as one would type it; of a path only the last part, since the rest tells where somebody works."""
    if isinstance(setting, float):  # Arrow and pandas make floats of integers that have a null beside them
        return format(setting, ".0f" if setting.is_integer() else spec)
    if isinstance(setting, str):
        is_path = setting.startswith(("/", "~", ".")) or "://" in setting
        return posixpath.basename(setting.rstrip("/")) if is_path else setting
    return json.dumps(setting, ensure_ascii=False)


BASELINES = {
    "majority": "majority",
    "linear_audio": "linear, audio",
    "linear_text": "linear, text",
    "linear_fused": "linear, fused",
}


def baseline(name: str) -> str:
    """A baseline's name."""
    return say(BASELINES[name]) if name in BASELINES else name


FILTERS: dict[str, Callable[..., str]] = {
    "score": score,
    "two": two,
    "share": share,
    "count": count,
    "interval": interval,
    "span": span,
    "share_span": share_span,
    "signed_span": signed_span,
    "baseline": baseline,
    "duration": duration,
    "signed": signed,
    "value": value,
}
"""For the templates."""
