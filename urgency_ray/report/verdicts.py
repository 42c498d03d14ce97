"""What figures allow to say: the verdicts on fusion, on baselines, on a search, on runs beside each other."""

from __future__ import annotations

from collections.abc import Mapping

from urgency_ray.report import words
from urgency_ray.report.language import say
from urgency_ray.scoring.blocks import AgainstBaseline, ClassificationBlock, Interval, SearchSummary
from urgency_ray.scoring.paired import PairedFigure


def _around(interval: Interval) -> str:
    low, high = interval
    return say("95 %% interval %(low)s to %(high)s", low=words.signed(low), high=words.signed(high))


def fusion_verdict(blocks: Mapping[str, ClassificationBlock]) -> str | None:
    """What the intervals of an ablation allow to say about fusing both modalities; None where it compares nothing."""
    singles = [name for name in ("audio", "text") if name in blocks]
    if "fused" not in blocks or not singles:
        return None
    best = max(singles, key=lambda name: blocks[name].macro_f1)
    fused, single = blocks["fused"], blocks[best]
    figures = say(
        "fused %(fused)s (%(around)s), %(best)s %(single)s (%(around_single)s)",
        fused=words.score(fused.macro_f1),
        around=words.interval(fused),
        best=say(best),
        single=words.score(single.macro_f1),
        around_single=words.interval(single),
    )
    (fused_low, fused_high), (low, high) = fused.macro_f1_interval, single.macro_f1_interval
    if fused_low <= high and low <= fused_high:
        return say(
            "The intervals of fused and of %(best)s, the better single modality, overlap: %(figures)s. These %(rows)s test "
            "rows do not show that fusing both beats %(best)s alone.",
            best=say(best),
            figures=figures,
            rows=words.count(fused.num_rows),
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


AGAINST_BASELINE = {
    "no_better": "No better beyond noise than the best baseline, %(name)s: %(figures)s.",
    "better": "Better beyond noise than the best baseline, %(name)s: %(figures)s.",
    "worse": "Worse beyond noise than the best baseline, %(name)s: %(figures)s.",
}


def baseline_verdict(against: AgainstBaseline) -> str:
    """Whether the model beats the best baseline, as far as the test rows can tell."""
    figures = say(
        "%(difference)s macro-F1 on test, %(around)s",
        difference=words.signed(against.macro_f1),
        around=_around(against.interval),
    )
    return say(AGAINST_BASELINE[against.verdict], name=words.baseline(against.baseline), figures=figures)


COMPARED = {
    "no_better": "%(name)s is no better beyond noise than %(first)s: %(figures)s.",
    "better": "%(name)s is better beyond noise than %(first)s: %(figures)s.",
    "worse": "%(name)s is worse beyond noise than %(first)s: %(figures)s.",
}


def comparison_verdict(name: str, first: str, macro_f1: PairedFigure) -> str:
    """Whether a run beats the first, as far as the common test calls can tell."""
    figures = say(
        "%(difference)s macro-F1, %(around)s", difference=words.signed(macro_f1.difference), around=_around(macro_f1.interval)
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
        macro_f1=words.score(mixed.test.macro_f1),
        winner=words.signed(mixed.against_winner.macro_f1),
        around_winner=_around(mixed.against_winner.interval),
        defaults=words.signed(mixed.against_defaults.macro_f1),
        around_defaults=_around(mixed.against_defaults.interval),
        losses=", ".join(f"{words.score(loss)} {model_name(name)}" for name, loss in mixed.log_loss.items()),
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
    scores = words.score(tune.test.macro_f1)
    if tune.defaults is not None:
        scores = say("%(score)s against %(other)s", score=scores, other=words.score(tune.defaults.test.macro_f1))
    figures = say(
        "test macro-F1 %(scores)s, a difference of %(difference)s (%(around)s)",
        scores=scores,
        difference=words.signed(difference.macro_f1),
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
