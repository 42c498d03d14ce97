"""What the page says in words: reasons, measures, numbers, verdicts. English here; `language` says it as the page wants it."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from urgency_ray.errors import Reason
from urgency_ray.report.korean import REASONS
from urgency_ray.report.language import say, spoken
from urgency_ray.scoring.blocks import AgainstBaseline, ClassificationBlock, SearchSummary
from urgency_ray.scoring.paired import PairedFigure

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


def _around(interval: tuple[float, float]) -> str:
    low, high = interval
    return say("95 %% interval %(low)s to %(high)s", low=signed(low), high=signed(high))


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


def fusion_verdict(blocks: Mapping[str, ClassificationBlock]) -> str | None:
    """What the intervals of an ablation allow to say about fusing both modalities; None where it compares nothing."""
    singles = [name for name in ("audio", "text") if name in blocks]
    if "fused" not in blocks or not singles:
        return None
    best = max(singles, key=lambda name: blocks[name].macro_f1)
    fused, single = blocks["fused"], blocks[best]
    figures = say(
        "fused %(fused)s (%(around)s), %(best)s %(single)s (%(around_single)s)",
        fused=score(fused.macro_f1),
        around=interval(fused),
        best=say(best),
        single=score(single.macro_f1),
        around_single=interval(single),
    )
    (fused_low, fused_high), (low, high) = fused.macro_f1_interval, single.macro_f1_interval
    if fused_low <= high and low <= fused_high:
        return say(
            "The intervals of fused and of %(best)s, the better single modality, overlap: %(figures)s. These %(rows)s test "
            "rows do not show that fusing both beats %(best)s alone.",
            best=say(best),
            figures=figures,
            rows=count(fused.num_rows),
        )
    figure = {"best": say(best), "figures": figures}
    if fused.macro_f1 > single.macro_f1:
        return say(
            "Fusing both is better than %(best)s, the better single modality; the intervals do not overlap: %(figures)s.",
            **figure,
        )
    return say(
        "Fusing both is worse than %(best)s, the better single modality; the intervals do not overlap: %(figures)s.", **figure
    )


BASELINES = {
    "majority": "majority",
    "linear_audio": "linear, audio",
    "linear_text": "linear, text",
    "linear_fused": "linear, fused",
}


def baseline(name: str) -> str:
    """A baseline's name."""
    return say(BASELINES[name]) if name in BASELINES else name


AGAINST_BASELINE = {
    "no_better": "No better beyond noise than the best baseline, %(name)s: %(figures)s.",
    "better": "Better beyond noise than the best baseline, %(name)s: %(figures)s.",
    "worse": "Worse beyond noise than the best baseline, %(name)s: %(figures)s.",
}


def baseline_verdict(against: AgainstBaseline) -> str:
    """Whether the model beats the best baseline, as far as the test rows can tell."""
    figures = say(
        "%(difference)s macro-F1 on test, %(around)s",
        difference=signed(against.macro_f1),
        around=_around(against.interval),
    )
    return say(AGAINST_BASELINE[against.verdict], name=baseline(against.baseline), figures=figures)


COMPARED = {
    "no_better": "%(name)s is no better beyond noise than %(first)s: %(figures)s.",
    "better": "%(name)s is better beyond noise than %(first)s: %(figures)s.",
    "worse": "%(name)s is worse beyond noise than %(first)s: %(figures)s.",
}


def comparison_verdict(name: str, first: str, macro_f1: PairedFigure) -> str:
    """Whether a run beats the first, as far as the common test calls can tell."""
    figures = say(
        "%(difference)s macro-F1, %(around)s", difference=signed(macro_f1.difference), around=_around(macro_f1.interval)
    )
    return say(COMPARED[macro_f1.verdict], name=name, first=first, figures=figures)


def model_name(name: str) -> str:
    """A model of a search: winner, defaults, ensemble, linear, trial 7."""
    word, _, number = name.partition(" ")
    return say("trial %(number)s", number=number) if word == "trial" and number else say(name)


def search_ensemble(tune: SearchSummary) -> str | None:
    """What mixing the models of a search came to; None where it was not asked for."""
    if (mixed := tune.ensemble) is None:
        return None
    return say(
        "Their ensemble is made of %(shares)s: test macro-F1 %(macro_f1)s, %(winner)s against the winner alone "
        "(%(around_winner)s) and %(defaults)s against the defaults (%(around_defaults)s). Log loss on rows that the models "
        "have not seen: %(losses)s. The model saved is that of %(chosen)s.",
        shares=", ".join(f"{model_name(name)} {share:.0%}" for name, share in mixed.shares.items()),
        macro_f1=score(mixed.test.macro_f1),
        winner=signed(mixed.against_winner.macro_f1),
        around_winner=_around(mixed.against_winner.interval),
        defaults=signed(mixed.against_defaults.macro_f1),
        around_defaults=_around(mixed.against_defaults.interval),
        losses=", ".join(f"{score(loss)} {model_name(name)}" for name, loss in mixed.log_loss.items()),
        chosen=model_name(mixed.chosen),
    )


def tuning_verdict(tune: SearchSummary) -> tuple[str, bool]:
    """Whether the trial picked beats the config as it was before the search, as far as the test rows can tell.

    Args:
        tune: tune/metrics.json. Its `difference` is winner less defaults on test, with a paired bootstrap's 95 % interval.

    Returns:
        What to say, and whether the winner is better.
    """
    difference, mixed = tune.difference, tune.ensemble
    if mixed is not None and mixed.chosen == "ensemble":
        name = say("the ensemble of its models")
    else:
        name = say("trial %(number)s", number=tune.best_trial)
    if difference is None:
        return say(
            "Whether %(name)s, which the search picked, is better than the recipe’s defaults was not measured.", name=name
        ), False
    low, high = difference.interval
    if difference.verdict in ("same", "defaults"):
        if mixed is not None and mixed.chosen == "defaults":
            return say("The search kept the recipe’s defaults: nothing did better on rows that it had not seen."), False
        return say("The search picked the recipe’s defaults themselves: no other trial did better on validation."), False
    scores = score(tune.test.macro_f1)
    if tune.defaults is not None:
        scores = say("%(score)s against %(other)s", score=scores, other=score(tune.defaults.test.macro_f1))
    figures = say(
        "test macro-F1 %(scores)s, a difference of %(difference)s (%(around)s)",
        scores=scores,
        difference=signed(difference.macro_f1),
        around=_around(difference.interval),
    )
    if low > 0:
        return say(
            "The search found better: %(name)s beats the recipe’s defaults beyond noise, %(figures)s.",
            name=name,
            figures=figures,
        ), True
    if high < 0:
        return say(
            "Keep the recipe’s defaults: %(name)s, which the search picked, is worse beyond noise, %(figures)s.",
            name=name,
            figures=figures,
        ), False
    return say(
        (
            "The search found nothing that is better than the recipe’s defaults beyond noise: %(name)s has %(figures)s; that "
            "interval includes zero."
        ),
        name=name,
        figures=figures,
    ), False


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
